"""The graph of a plan: every cell once, no circle, nothing waited for that is not read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.conformance.toy_domain import CARD
from casl_bench.core.errors import UsageError
from casl_bench.runs.attempts import Attempts
from casl_bench.runs.executor import DEATHS, drive
from casl_bench.runs.graph import (
    Node,
    Outcome,
    make_nodes,
    owned_by,
    part_of,
    pending,
    with_smoke,
    without_shared,
)
from casl_bench.runs.names import load_entrants
from casl_bench.runs.plan import Cell, WorldIdentity, info_of, plan
from casl_bench.runs.suites import RunConfig, Shard
from tests.support.tiny_suite import tiny_suite

METHODS = ("h_linear", "sae_steer", "asyrp")
PLANS = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, len(METHODS)), st.integers(1, 2)
)


@cache
def planned(
    datasets: int, concepts: int, methods: int, fits: int
) -> tuple[RunConfig, tuple[Cell, ...]]:
    load_entrants()
    names = tuple(f"toy_{i}" for i in range(datasets))
    config = RunConfig(
        methods=METHODS[:methods], datasets=names, suite=tiny_suite(), seed=0, device="cpu",
        concepts=tuple(c.name for c in CARD.concepts[:concepts]), out=Path("run"), fit_seeds=fits,
    )  # fmt: skip
    worlds = {name: WorldIdentity(replace(CARD, name=name), name) for name in names}
    return config, plan(config, worlds)


def graph(shape: tuple[int, int, int, int]) -> tuple[tuple[Cell, ...], tuple[Node, ...]]:
    config, cells = planned(*shape)
    # The later the data set, the smaller.
    sizes = {name: 64 - i for i, name in enumerate(config.datasets)}
    return cells, make_nodes(config, cells, sizes)


def reached(nodes: Sequence[Node], node: Node) -> set[str]:
    """Names of all that a node waits for."""
    by_name = {n.name: n for n in nodes}
    found: set[str] = set()
    wanted = list(node.needs)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += by_name[name].needs
    return found


def in_order(nodes: Sequence[Node]) -> bool:
    """Whether each node's needs stand before it, which no circle can."""
    before: set[str] = set()
    for node in nodes:
        if not set(node.needs) <= before:
            return False
        before.add(node.name)
    return len(before) == len(nodes)


@settings(max_examples=20)
@given(PLANS)
def test_every_cell_is_in_one_node_and_waits_for_what_it_reads(
    shape: tuple[int, int, int, int],
) -> None:
    cells, nodes = graph(shape)
    assert Counter(c.key for n in nodes for c in n.cells) == Counter(c.key for c in cells)
    assert in_order(nodes) and in_order(with_smoke(nodes)) and in_order(without_shared(nodes))
    shared = Counter((n.dataset, n.kind, n.part) for n in nodes if not n.cells)
    assert set(shared.values()) == {1}
    home = {c.key: n for n in nodes for c in n.cells}
    for cell in cells:
        assert not info_of(cell.method).draws  # run once for the whole data set
        if cell.beside:  # at the strength of its partner's record, so in one node and after it
            own = [c.method for c in home[cell.key].cells]
            assert own.index(cell.method) > own.index(cell.beside)
    for node in nodes:
        waits = reached(nodes, node)
        assert {name.split("/")[0] for name in waits} <= {node.dataset}
        assert (f"{node.dataset}/sae//" in waits) == (node.uses_sae or node.kind == "last")


@settings(max_examples=20)
@given(PLANS, st.integers(0, 2**16))
def test_what_is_done_is_left_out_and_nothing_else(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    cells, nodes = graph(shape)
    done = {c.key for c in cells if random.Random(f"{seed}{c.key}").random() < 0.7}
    left = pending(nodes, done)
    assert {c.key for c in cells} - done <= {c.key for n in left for c in n.cells}
    assert in_order(left)
    for node in left:
        if node.cells:
            assert node.uses_sae or not {c.key for c in node.cells} <= done
    everything = pending(nodes, {c.key for c in cells})
    assert not [n for n in everything if n.cells and not n.uses_sae]


@settings(max_examples=20)
@given(PLANS)
def test_a_methods_first_cell_goes_before_its_others_on_the_smallest_data_set(
    shape: tuple[int, int, int, int],
) -> None:
    _, nodes = graph(shape)
    smallest = f"toy_{shape[0] - 1}"
    gated = with_smoke(nodes)
    for method in {n.method for n in gated if n.method}:
        first, *others = [n for n in gated if n.method == method]
        assert first.gate is None and first.dataset == smallest
        for node in others:
            assert node.gate in first.cells and first.name in node.needs
            assert node.gate.method == method and not node.gate.beside


@settings(max_examples=20)
@given(PLANS, st.integers(1, 9))
def test_shards_are_equal_parts_that_make_up_the_whole(
    shape: tuple[int, int, int, int], count: int
) -> None:
    _, nodes = graph(shape)
    parts = owned_by(nodes, count)
    own = {n.name: n.work + 1 for n in nodes if n.cells or n.kind in ("null", "last")}
    assert parts.keys() == own.keys() and set(parts.values()) <= set(range(1, count + 1))
    loads = [sum(w for name, w in own.items() if parts[name] == i) for i in range(1, count + 1)]
    assert max(loads) <= sum(own.values()) / count + max(own.values()) + 1e-6
    cuts = [part_of(nodes, Shard(index=i, count=count)) for i in range(1, count + 1)]
    assert all(in_order(cut) for cut in cuts)
    assert {n.name for cut in cuts for n in cut if n.cells} == {n.name for n in nodes if n.cells}


class FakeEngine:
    """Ends nodes in any order; some of their processes die first."""

    def __init__(self, places: int, deaths: dict[str, int], seed: int) -> None:
        self.places, self.deaths, self.chance = places, deaths, random.Random(seed)
        self.at_work: list[Node] = []
        self.begun: list[str] = []
        self.done: set[str] = set()
        self.most = 0

    @property
    def free(self) -> bool:
        return len(self.at_work) < self.places

    @property
    def warm(self) -> tuple[str, ...]:
        return ("toy_0",)

    def submit(self, node: Node) -> None:
        assert set(node.needs) <= self.done
        self.begun.append(node.name)
        self.at_work.append(node)
        self.most = max(self.most, len(self.at_work))

    def next(self) -> Outcome:
        node = self.at_work.pop(self.chance.randrange(len(self.at_work)))
        if self.deaths.get(node.name, 0):
            self.deaths[node.name] -= 1
            return Outcome(node, died=True)
        self.done.add(node.name)
        return Outcome(node)

    def close(self, *, kill: bool) -> None: ...


@settings(max_examples=20)
@given(PLANS, st.integers(1, 4), st.integers(0, 2**16))
def test_nodes_begin_once_their_needs_are_done_and_again_where_a_process_died(
    shape: tuple[int, int, int, int], places: int, seed: int
) -> None:
    nodes = with_smoke(graph(shape)[1])
    chance = random.Random(seed)
    deaths = {n.name: chance.randrange(DEATHS) for n in nodes if chance.random() < 0.3}
    engine = FakeEngine(places, dict(deaths), seed)
    list(drive(nodes, engine, Attempts(Path("absent"))))
    assert engine.done == {n.name for n in nodes}
    assert Counter(engine.begun) == Counter({n.name: 1 + deaths.get(n.name, 0) for n in nodes})


def test_what_needs_a_node_that_is_given_up_is_never_begun() -> None:
    nodes = graph((2, 1, 2, 1))[1]
    engine = FakeEngine(2, {"toy_1/sae//": DEATHS}, 0)
    list(drive(nodes, engine, Attempts(Path("absent"))))
    absent = {n.name for n in nodes} - engine.done
    assert absent == {"toy_1/sae//"} | {n.name for n in nodes if "toy_1/sae//" in reached(nodes, n)}
    assert engine.begun.count("toy_1/sae//") == DEATHS


def test_no_process_stands_idle_while_another_makes_what_is_shared() -> None:
    nodes = graph((3, 2, 2, 1))[1]
    engine = FakeEngine(2, {}, 0)
    idle = sum(len(engine.at_work) < 1 for _ in drive(nodes, engine, Attempts(Path("absent"))))
    assert engine.most == 2
    assert idle <= 2, "a second process had nothing to do in the middle of the run"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "١/٢", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no shard"):
        Shard.parse(text)
