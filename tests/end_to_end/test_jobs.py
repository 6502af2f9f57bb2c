"""Processes beside each other change how long a run takes, and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import Progress, SilentProgress
from casl_bench.runs.suites import RunConfig
from tests.support.tiny_suite import tiny_suite

PLUGINS = tuple((Path(__file__).parents[1] / "plugin").resolve() / f for f in (
    "toy_world_plugin.py", "single_file_method.py"))  # fmt: skip
TINY = tiny_suite()


def run(out: Path, jobs: int, progress: Progress | None = None, **changes: Any) -> int:
    load_registries(PLUGINS)
    settings: dict[str, Any] = {
        "methods": ("casl", "casl_steer", "asyrp"), "datasets": ("toy_shapes",), "concepts": None,
        "suite": TINY, "seed": 0, "device": "cpu", "out": out, "plugins": PLUGINS, "jobs": jobs,
        "cache": out.with_name(f"{out.name}-cache"),  # each makes its own
    }  # fmt: skip
    return runner.run(RunConfig(**(settings | changes)), progress or SilentProgress())


def comparable(out: Path) -> dict[str, Any]:
    return {
        f"{r.kind}/{r.method}@{r.beside}/{r.concept}" + (f"#{r.fit_seed}" if r.fit_seed else ""):
        r.comparable()
        for r in RecordStore(out)
    }  # fmt: skip


def lines(out: Path) -> list[str]:
    return sorted(r.record_id for r in RecordStore(out))


def _passes(progress: Progress) -> dict[str, float]:
    return {name: cost.passes for name, cost in progress.costs.by_phase().items() if cost.passes}


@pytest.mark.slow
@pytest.mark.usefixtures("own_entrants")
def test_two_processes_give_the_records_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    threads = torch.get_num_threads()
    alone, beside = SilentProgress(), SilentProgress()
    torch.set_num_threads(2)  # a run computes on one thread all the same
    try:
        assert run(one, 1, alone) == run(two, 2, beside)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert comparable(one) == comparable(two)
    assert lines(one) == lines(two)
    assert alone.costs.total > 0
    assert _passes(beside) == _passes(alone)
    before = {p: p.stat().st_mtime_ns for p in (two / "cells").rglob("*") if p.is_file()}
    run(two, 2)  # nothing is left to do
    assert before == {p: p.stat().st_mtime_ns for p in (two / "cells").rglob("*") if p.is_file()}


def test_errors_come_whole_out_of_a_process() -> None:
    error = InvalidBenchmarkError("a fault", where="here", hint="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InvalidBenchmarkError and str(again) == str(error)
