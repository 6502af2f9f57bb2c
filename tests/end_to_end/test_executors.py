"""Whoever runs the cells, records are equal; whoever dies, hangs or fails, the rest finishes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest

from casl_bench.conformance.toy_domain import CARD
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.domains.domain import Domain
from casl_bench.results.record import ErrorInfo
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs import parallel
from casl_bench.runs.executor import settle
from casl_bench.runs.merge import merge
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import identify, open_domains, plan
from casl_bench.runs.progress import BufferedProgress, SilentProgress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import Execution, RunConfig, Shard
from casl_bench.runs.tasks import Attempts, CellTimeoutError, Task, make_tasks
from casl_bench.runs.worker import Worker
from tests.support.tiny_suite import tiny_suite

ROOT = Path(__file__).parents[2]
PLUGINS = tuple((ROOT / "tests/plugin").resolve() / f for f in (
    "toy_world_plugin.py", "single_file_method.py", "troubled_methods.py"))  # fmt: skip
CONCEPTS = tuple(c.name for c in CARD.concepts[:2])
METHODS_RUN = ("darken", "sae_steer")
LIMIT = 5.0
"""Seconds a cell may take: a healthy one takes a fraction of one."""


many_processes = pytest.mark.skipif(
    not os.environ.get("CASL_BENCH_FULL_SIZE"),
    reason="starts many processes, a minute: set CASL_BENCH_FULL_SIZE=1",
)


@pytest.fixture(scope="module", autouse=True)
def plugins(own_entrants: None) -> None:
    """What the plugins add is known here alone."""
    load_registries(PLUGINS)


def config(out: Path, **changes: Any) -> RunConfig:
    execution = {k: changes.pop(k) for k in Execution.model_fields if k in changes}
    fields: dict[str, Any] = {
        "methods": METHODS_RUN, "datasets": (CARD.name,), "concepts": CONCEPTS,
        "suite": tiny_suite(), "seed": 0, "device": "cpu", "out": out, "plugins": PLUGINS,
        "cache": out.with_name(f"{out.name}-cache"), "execution": Execution(**execution),
    }  # fmt: skip
    return RunConfig(**(fields | changes))


def ids(out: Path) -> dict[Path, str]:
    return {CellKey.of(r).path: r.record_id for r in RecordStore(out)}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("serial") / "run"
    assert runner.run(config(out), SilentProgress()) == 0
    return out


def test_dask_in_threads_gives_the_records_of_one_process(serial: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="comes with the extra 'cluster'")
    out = tmp_path / "run"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        place = cluster.scheduler_address
        assert runner.run(config(out, scheduler=place), SilentProgress()) == 0
        with pytest.raises(UsageError, match="shares the command's"):
            runner.run(
                config(tmp_path / "no", scheduler=place, cell_timeout=LIMIT), SilentProgress()
            )
    assert ids(out) == ids(serial)


@pytest.fixture
def warm() -> Iterator[BaseContext]:
    """Dask's processes are forked from one that has imported torch and all: it takes 12 s each."""
    dask = pytest.importorskip("dask", reason="comes with the extra 'cluster'")
    get_mp_context = pytest.importorskip("distributed.utils").get_mp_context
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        context = get_mp_context()
        context.set_forkserver_preload(["distributed", "casl_bench.runs.executor"])
        yield context


def dask_command(arguments: tuple[str, ...], log: Path) -> None:
    """`dask scheduler` or `dask worker`, in this process."""
    from dask.__main__ import main

    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["dask", *arguments]
    main()


@pytest.fixture
def cluster(tmp_path: Path, warm: BaseContext) -> Iterator[tuple[str, list[Any]]]:
    """A scheduler and two workers over TCP, with the options that a user gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"

    def start(*arguments: str) -> Any:
        process = warm.Process(
            target=dask_command, args=(arguments, tmp_path / f"{arguments[0]}.log")
        )
        process.start()
        return process

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
                      "--dashboard-address", "127.0.0.1:0")  # fmt: skip
    worker = ("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
              "--local-directory", str(tmp_path))  # fmt: skip
    workers = [start(*worker) for _ in range(2)]
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.join()


@pytest.mark.slow
def test_workers_over_tcp_give_the_records_of_one_process_though_one_is_killed(
    serial: Path, tmp_path: Path, cluster: tuple[str, list[Any]]
) -> None:
    address, workers = cluster
    out = tmp_path / "run"

    class KillsOne(BufferedProgress):
        """Kills a worker as soon as there is a record."""

        def _open(self, description: str, total: int, unit: str) -> None:
            if workers[0].is_alive() and list(out.glob("cells/*/*/*/record.json")):
                workers[0].kill()
                workers[0].join()

    one = config(out, scheduler=address, concepts=CONCEPTS[:1])
    assert runner.run(one, KillsOne()) == 0
    assert workers[0].exitcode == -signal.SIGKILL and workers[1].is_alive()
    own = ids(out)
    assert len(own) > 10 and own.items() <= ids(serial).items()


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "dask"])
def test_cells_that_die_hang_or_give_nan_fail_alone(
    serial: Path, tmp_path: Path, executor: str, request: pytest.FixtureRequest
) -> None:
    if executor == "dask":
        request.getfixturevalue("warm")
    out, said = tmp_path / "run", BufferedProgress()
    settings = config(
        out, methods=("dies", "hangs", "gives_nan", "darken"), concepts=CONCEPTS[:1],
        jobs=2, executor=executor, cell_timeout=LIMIT,
    )  # fmt: skip
    assert runner.run(settings, said) == 3
    records = {CellKey.of(r).path: r for r in RecordStore(out)}
    failed = {r.method: r.error for r in records.values() if r.status == "failed"}
    assert failed.keys() == {"dies", "hangs", "gives_nan"}
    kinds = {m: e.type for m, e in failed.items() if e is not None}
    assert kinds["dies"] == "CellDiedError" and kinds["hangs"] == "CellTimeoutError"
    assert failed["gives_nan"] is not None and "NaN" in failed["gives_nan"].message
    traces = list((out / "attempts").glob("*.trace"))
    assert len(traces) == 1 and "in edit" in traces[0].read_text()
    assert list((out / "attempts").iterdir()) == traces
    assert any(line.endswith("a process died that worked at it") for line in said.lines)
    alone = ids(serial)
    for path, record in records.items():
        if record.kind == "edit" and (record.method == "darken" or record.control):
            assert record.status == "done" and record.record_id == alone[path]


@many_processes
def test_workers_that_a_queue_starts_give_the_records_of_one_process(
    serial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask = pytest.importorskip("dask", reason="comes with the extra 'cluster'")
    pytest.importorskip("dask_jobqueue", reason="comes with the extra 'cluster'")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        # The script is gone as soon as this has taken it.
        "sbatch": f'job={tmp_path}/job-$$; cp "$1" $job; setsid bash $job > $job.log 2>&1 & '
        "echo Submitted batch job $!",
        "scancel": "kill -- -$1",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "run"
    job = {"memory": "4GB", "cores": 1, "processes": 1, "interface": "lo",
           "local-directory": str(tmp_path)}  # fmt: skip
    settings = config(out, executor="dask", queue="slurm", jobs=2, cell_timeout=60)
    with dask.config.set({f"jobqueue.slurm.{field}": value for field, value in job.items()}):
        assert runner.run(settings, SilentProgress()) == 0
    assert ids(out) == ids(serial)


@many_processes
@pytest.mark.parametrize("all_at_once", [False, True])
def test_killed_with_its_processes_a_command_goes_on_where_it_stopped(
    serial: Path, tmp_path: Path, moments: random.Random, all_at_once: bool
) -> None:
    out = tmp_path / "run"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "import test_executors as t; from casl_bench.runs.names import load_registries\n"
        "load_registries(t.PLUGINS)\n"
        "t.runner.run(t.config(Path(sys.argv[2]), jobs=2), t.SilentProgress())\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(out)]
    driver = subprocess.Popen(
        arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    cells = out / "cells" / CARD.name
    # Of the last ones it may be through before they are seen.
    there = moments.randrange(1, len(list(serial.glob("cells/*/[!_]*/*/record.json"))) - 3)
    print(f"killed with {there} cells")
    wait_until(
        lambda: len(list(cells.glob("[!_]*/*/record.json"))) >= there or driver.poll() is not None
    )
    if all_at_once:
        os.killpg(driver.pid, signal.SIGKILL)
    else:
        driver.kill()
    assert driver.wait() == -signal.SIGKILL
    before = {p: p.stat().st_mtime_ns for p in cells.glob("*/*/record.json")}
    assert runner.run(config(out), SilentProgress()) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before  # not done again
    assert ids(out) == ids(serial)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[RunConfig, dict[str, Domain], tuple[Task, ...]]:
    """A run that is planned: its domains and its tasks."""
    settings = config(tmp_path / "run", cell_timeout=LIMIT)
    domains = open_domains(settings)
    cells = plan(settings, identify(domains))
    return settings, domains, make_tasks(settings.suite, cells, {CARD.name: CARD.resolution})


def test_a_cell_that_processes_died_of_or_that_hung_is_not_begun_again(
    planned: tuple[RunConfig, dict[str, Domain], tuple[Task, ...]],
) -> None:
    settings, domains, tasks = planned
    died, hung = (next(c for c in t.cells if c.method == "darken")
                  for t in tasks if t.part.endswith("darken"))  # fmt: skip
    attempts = Attempts(settings.out)
    attempts.folder.mkdir(parents=True)
    (attempts.folder / died.key).write_text("..")
    (attempts.folder / hung.key).write_text(".")
    (attempts.folder / f"{hung.key}.trace").write_text("Timeout")
    said = BufferedProgress()
    worker = Worker(settings, domains.__getitem__, said, attempts)
    for cell, kind in ((died, "CellDiedError"), (hung, "CellTimeoutError")):
        worker.do(Task("cells", cell.dataset, cell.label, (cell,)))
        record = worker.store.find(cell.store_key)
        assert record is not None and record.error is not None
        assert record.status == "failed" and record.error.type == kind
    assert len(said.lines) == 2
    attempts.tidy()
    assert [p.suffix for p in attempts.folder.iterdir()] == [".trace"]


def test_a_cell_whose_task_did_not_end_is_given_a_reason_unless_it_is_done(
    serial: Path, planned: tuple[RunConfig, dict[str, Domain], tuple[Task, ...]]
) -> None:
    settings, domains, tasks = planned
    shutil.copytree(serial / "cells", settings.out / "cells")
    store = RecordStore(settings.out)
    assert not settle(settings, domains, store, [t for t in tasks if t.cells], set())
    assert ids(settings.out).items() <= ids(serial).items()
    lost, unrecorded = (t.cells[0] for t in tasks if t.part.endswith("darken"))
    for cell in (lost, unrecorded):
        shutil.rmtree(store.folder(cell.store_key))
    ended = {t.name for t in tasks if unrecorded in t.cells}
    assert settle(settings, domains, store, tasks, ended)
    failed = {CellKey.of(r): r.error for r in store if r.status == "failed"}
    assert {k: e.type for k, e in failed.items() if e is not None} == {
        lost.store_key: "CellDiedError", unrecorded.store_key: "UnrecordedError"
    }  # fmt: skip


def test_a_worker_that_has_another_file_of_a_method_is_refused(
    planned: tuple[RunConfig, dict[str, Domain], tuple[Task, ...]],
) -> None:
    settings, domains, tasks = planned
    task = next(t for t in tasks if t.part.endswith("darken"))
    cells = tuple(replace(c, sources={**c.sources, "method darken": "0" * 64}) for c in task.cells)
    worker = Worker(settings, domains.__getitem__, SilentProgress())
    with pytest.raises(UsageError, match="a worker has another source of method darken than"):
        worker.do(replace(task, cells=cells))


def test_a_limit_of_time_ends_a_process_that_never_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from casl_bench.runs.tasks import Attempts\n"
        "with Attempts(Path(sys.argv[1])).begun('key', 0.2): sum(iter(int, 1))\n"  # a loop in C
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    attempts = Attempts(tmp_path)
    assert attempts.count("key") == 1
    assert type(attempts.fault("key", 0.2)) is CellTimeoutError


def wait_until(happened: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_method_whose_first_cell_fails_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert runner.run(config(out, methods=("gives_nan", "darken")), SilentProgress()) == 3
    own = {r.concept: r for r in RecordStore(out) if r.method == "gives_nan"}
    assert own[CONCEPTS[0]].error.type == "InputError"
    assert own[CONCEPTS[1]].error.type == "SmokeFailedError"
    assert "gives_nan" in own[CONCEPTS[1]].error.message
    others = [r for r in RecordStore(out) if r.method == "darken"]
    assert len(others) == 2 and {r.status for r in others} == {"done"}
    runner.run(config(out, methods=("gives_nan",), smoke=False), SilentProgress())
    own = {r.concept: r for r in RecordStore(out) if r.method == "gives_nan"}
    assert {r.error.type for r in own.values()} == {"InputError"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two halves, on a cache of their own."""
    root = tmp_path_factory.mktemp("shards")
    parts = [root / "1", root / "2"]
    for i, out in enumerate(parts, start=1):
        settings = config(out, shard=Shard(index=i, count=2), cache=root / "cache")
        with claim_run_folder(settings):
            assert runner.run(settings, SilentProgress()) == 0
    return parts


def test_merged_shards_are_the_whole_run(serial: Path, shards: list[Path], tmp_path: Path) -> None:
    edits = [{CellKey.of(r).path for r in RecordStore(p) if r.kind == "edit"} for p in shards]
    whole = {CellKey.of(r).path for r in RecordStore(serial) if r.kind == "edit"}
    assert edits[0] | edits[1] == whole and not edits[0] & edits[1]
    out = tmp_path / "out"
    for _ in range(2):
        merged = merge(out, shards)
        assert ids(out) == ids(serial) and not merged.failed
    assert merged.copied == 0 and merged.text == f"{len(ids(serial))} records, 0 of them new"
    # One after the other, onto a run that is there.
    other = tmp_path / "other"
    for shard in shards:
        merge(other, [shard])
    assert ids(other) == ids(serial)
    numbers = [(run / "numbers.jsonl").read_bytes() for run in (out, other)]
    assert numbers[0] == numbers[1]
    # The command of the whole then finds nothing left to do.
    before = {p: p.stat().st_mtime_ns for p in other.glob("cells/*/*/*/record.json")}
    assert runner.run(config(other), SilentProgress()) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_runs_that_differ_are_refused_in_one_line(
    serial: Path, shards: list[Path], tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    with pytest.raises(UsageError, match="no run whose manifest"):
        merge(out, [shards[0], tmp_path])
    shutil.copytree(shards[1], other)
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 9'))
    with pytest.raises(UsageError, match="different configurations: seed 0 there, 9 asked for"):
        merge(out, [shards[0], other])
    assert not out.exists()
    merge(out, shards[:1])
    with pytest.raises(UsageError, match="another configuration: seed 0 there, 9 asked for"):
        merge(out, [other])


def test_two_results_of_one_cell_are_refused_and_a_failed_one_is_filled(
    shards: list[Path], tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(shards[1], other)
    store = RecordStore(other)
    record = next(r for r in store if r.kind == "edit")
    folder = store.folder(CellKey.of(record))
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "record.json"}
    store.write(record.model_copy(update={"flags": ("another",)}), files)
    with pytest.raises(InvalidBenchmarkError, match=r"two results of .*: their flags differ"):
        merge(out, [shards[1], other])
    shutil.rmtree(out)
    error = ErrorInfo(type="CellDiedError", message="its process died")
    bare = {name: None for name in ("scores", "validation_scores", "images")}
    store.write(record.model_copy(update={"status": "failed", "error": error, **bare}))
    assert merge(out, [other]).failed == (CellKey.of(record),)
    assert merge(out, [shards[1]]).failed == ()
    assert merge(out, [other]).failed == ()  # what is done stays
    assert ids(out) == ids(shards[1])


@pytest.mark.parametrize(
    ("options", "jobs", "match"),
    [
        ({"executor": "serial"}, 2, "leave --jobs out"),
        ({"executor": "serial", "cell_timeout": 1}, 1, "--executor local or dask"),
        ({"executor": "local", "scheduler": "tcp://x:1"}, 1, "use --executor dask"),
        ({"scheduler": "tcp://x:1"}, 2, "leave --jobs or --scheduler out"),
        ({"executor": "local", "queue": "slurm"}, 1, "use --executor dask"),
        ({"scheduler": "tcp://x:1", "queue": "slurm"}, 1, "leave one of them out"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], jobs: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Execution(**options).check(jobs)


def test_dask_that_is_not_there_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'casl-bench\[cluster\]'"):
        runner.run(config(tmp_path / "run", executor="dask"), SilentProgress())
    monkeypatch.setattr(parallel, "find_spec", lambda name: name == "distributed" or None)
    with pytest.raises(UsageError, match=r"'dask-jobqueue'; pip install 'casl-bench\[cluster\]'"):
        runner.run(config(tmp_path / "run", queue="slurm"), SilentProgress())
    assert not (tmp_path / "run").exists()
