"""The tasks of a plan: every cell once, shards make up the whole, deaths cost what had begun."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casl_bench.conformance.toy_domain import CARD
from casl_bench.core.errors import UsageError
from casl_bench.runs.executor import DEATHS, drive
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import Cell, DomainIdentity, plan
from casl_bench.runs.suites import RunConfig, Shard
from casl_bench.runs.tasks import (
    ATTEMPTS,
    Attempts,
    Task,
    make_tasks,
    owners_of,
    part_of,
    pending,
    with_gates,
)
from casl_bench.runs.worker import TaskResult
from tests.support.tiny_suite import tiny_suite

METHODS = ("h_linear", "sae_steer", "asyrp")
PLANS = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, len(METHODS)), st.integers(1, 2)
)
few = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def planned(datasets: int, concepts: int, methods: int, fits: int) -> tuple[Cell, ...]:
    load_registries()
    names = tuple(f"toy_{i}" for i in range(datasets))
    config = RunConfig(
        methods=METHODS[:methods], datasets=names, suite=tiny_suite(), seed=0, device="cpu",
        concepts=tuple(c.name for c in CARD.concepts[:concepts]), out=Path("run"), fit_seeds=fits,
    )  # fmt: skip
    return plan(config, {n: DomainIdentity(replace(CARD, name=n), n) for n in names})


def tasks_of(shape: tuple[int, int, int, int]) -> tuple[tuple[Cell, ...], tuple[Task, ...]]:
    cells = planned(*shape)
    # The later the data set, the smaller.
    return cells, make_tasks(tiny_suite(), cells, {f"toy_{i}": 64 - i for i in range(shape[0])})


@few
@given(PLANS)
def test_every_cell_is_in_one_task_with_what_is_matched_to_it(
    shape: tuple[int, int, int, int],
) -> None:
    cells, tasks = tasks_of(shape)
    assert Counter(c.key for t in tasks for c in t.cells) == Counter(c.key for c in cells)
    assert len({t.name for t in tasks}) == len({t.key for t in tasks}) == len(tasks)
    home = {c.key: t for t in tasks for c in t.cells}
    by_place = {(c.dataset, c.method, c.beside, c.concept.name, c.fit_seed): c for c in cells}
    for cell in cells:
        if cell.beside:
            partner = by_place[cell.dataset, cell.beside, None, cell.concept.name, 0]
            assert home[partner.key] is home[cell.key]
    for dataset in {t.dataset for t in tasks}:
        own = [t for t in tasks if t.dataset == dataset]
        first = min(i for i, t in enumerate(own) if t.cells)
        made = {t.kind for t in own[:first]}
        assert made >= {"inversions", "dataset"}
        assert ("sae" in made) == any(t.uses_sae for t in own)


@few
@given(PLANS, st.integers(0, 2**16))
def test_what_is_done_is_left_out_and_nothing_else(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    cells, tasks = tasks_of(shape)
    done = {c.key for c in cells if random.Random(f"{seed}{c.key}").random() < 0.7}
    left = pending(tasks, done)
    assert {c.key for c in cells} - done <= {c.key for t in left for c in t.cells}
    for task in left:
        if task.cells:
            assert not {c.key for c in task.cells} <= done
    whole = pending(tasks, {c.key for c in cells})
    assert not [t for t in whole if t.cells]
    # Records of a data set are looked for whatever is done.
    assert {t.dataset for t in whole if t.kind == "dataset"} == {t.dataset for t in tasks}


@few
@given(PLANS)
def test_a_methods_first_cell_on_the_smallest_data_set_decides_on_its_others(
    shape: tuple[int, int, int, int],
) -> None:
    gated = with_gates(tasks_of(shape)[1])
    for method in METHODS[: shape[2]]:
        first, *others = [t for t in gated if any(c.method == method for c in t.cells)]
        assert first.gate is None and first.dataset == f"toy_{shape[0] - 1}"
        for task in others:
            assert task.gate in first.cells
            assert task.gate is not None and task.gate.method == method and not task.gate.beside


@few
@given(PLANS, st.integers(1, 9))
def test_shards_are_equal_parts_that_make_up_the_whole(
    shape: tuple[int, int, int, int], count: int
) -> None:
    _, tasks = tasks_of(shape)
    owners = owners_of(tasks, count)
    own = {t.name: t.work + 1 for t in tasks if t.cells or t.kind == "random directions"}
    assert owners.keys() == own.keys() and set(owners.values()) <= set(range(1, count + 1))
    loads = [sum(w for name, w in own.items() if owners[name] == i) for i in range(1, count + 1)]
    assert max(loads) <= sum(own.values()) / count + max(own.values()) + 1e-6
    parts = [part_of(tasks, Shard(index=i, count=count)) for i in range(1, count + 1)]
    assert {t.name for part in parts for t in part} == {t.name for t in tasks}
    for part in parts:
        datasets = {t.dataset for t in part if t.name in owners}
        assert {t.dataset for t in part if t.kind == "inversions"} == datasets
        assert {t.dataset for t in part if t.kind == "sae"} == {
            t.dataset for t in part if t.uses_sae
        }


class FakePool:
    """Carries out tasks beside each other as joblib does: where one dies, all that had begun do.

    Args:
        attempts: marks as a worker leaves them.
        places: tasks at once.
        deadly: name of a task or key of a cell → so often it kills its process.
        seed: of the order in which tasks end.
    """

    def __init__(self, attempts: Attempts, places: int, deadly: dict[str, int], seed: int) -> None:
        self.attempts, self.places, self.deadly = attempts, places, dict(deadly)
        self.chance = random.Random(seed)
        self.done: set[str] = set()
        self.refused: set[str] = set()
        self.begun: Counter[str] = Counter()

    def __call__(self, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        waiting, at_work = list(tasks), list[Task]()
        while waiting or at_work:
            while waiting and len(at_work) < self.places:
                at_work.append(waiting.pop(0))
                self.mark(at_work[-1].key)
            task = at_work[self.chance.randrange(len(at_work))]
            if self.dies(task):
                return
            at_work.remove(task)
            self.attempts.end(task.key)
            self.done.add(task.name)
            yield TaskResult(task.name)

    def dies(self, task: Task) -> bool:
        if self.takes_one(task.name):
            return True
        for cell in task.cells:
            if self.attempts.fault(cell.key, None) is not None:
                self.refused.add(cell.key)
                continue
            self.mark(cell.key)
            if self.takes_one(cell.key):
                return True
            self.attempts.end(cell.key)
        return False

    def mark(self, key: str) -> None:
        self.begun[key] += 1
        with (self.attempts.folder / key).open("ab") as file:
            file.write(b".")

    def takes_one(self, name: str) -> bool:
        left = self.deadly.get(name, 0)
        self.deadly[name] = left - 1
        return left > 0


Pool = Callable[..., FakePool]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    def make(places: int, deadly: dict[str, int], seed: int = 0) -> FakePool:
        attempts = Attempts(tmp_path)
        attempts.clear()
        attempts.folder.mkdir()
        return FakePool(attempts, places, deadly, seed)

    return make


@few
@given(PLANS, st.integers(1, 4), st.integers(0, 2**16))
def test_a_cell_that_kills_its_process_is_refused_and_no_other(
    pool: Pool, shape: tuple[int, int, int, int], places: int, seed: int
) -> None:
    cells, tasks = tasks_of(shape)
    chance = random.Random(seed)
    always = {c.key: 99 for c in cells if chance.random() < 0.1}
    once = {c.key: 1 for c in cells if chance.random() < 0.1}
    shared = {t.name: chance.randrange(DEATHS) for t in tasks if chance.random() < 0.1}
    engine = pool(places, {**shared, **once, **always}, seed)
    heard = [r.task for r in drive([tasks], engine, engine.attempts)]
    assert sorted(heard) == sorted(t.name for t in tasks)
    assert engine.refused == set(always)
    # Once beside others, which does not count.
    assert all(ATTEMPTS <= engine.begun[key] <= ATTEMPTS + 1 for key in always)


def test_a_task_that_always_dies_is_given_up_and_so_is_the_data_set_that_reads_it(
    pool: Pool,
) -> None:
    _, tasks = tasks_of((2, 1, 2, 1))
    cells = next(t for t in tasks if t.dataset == "toy_0" and t.cells)
    engine = pool(2, {"toy_1 / sae": 99, cells.name: 99})
    said: list[str] = []
    heard = {r.task for r in drive([tasks], engine, engine.attempts, said.append)}
    absent = {t.name: t for t in tasks if t.name not in heard}
    assert cells.name in absent and "toy_1 / sae" in absent
    assert {t.name for t in absent.values() if t.dataset == "toy_0"} == {cells.name}
    for task in (cells, absent["toy_1 / sae"]):
        assert engine.begun[task.key] == DEATHS + 1
    assert "toy_1 / sae: a process died that worked at it" in said


def test_processes_that_die_before_they_begin_anything_end_the_run(pool: Pool) -> None:
    _, tasks = tasks_of((1, 1, 1, 1))
    calls = []

    def engine(tasks: Sequence[Task]) -> Iterator[TaskResult]:
        calls.append(tasks)
        return iter(())

    with pytest.raises(UsageError, match="die before they begin any work"):
        list(drive([tasks], engine, pool(1, {}).attempts))
    assert len(calls) == DEATHS


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "١/٢", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no shard"):
        Shard.parse(text)
