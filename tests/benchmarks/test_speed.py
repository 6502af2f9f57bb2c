"""What CI watches for speed: `pytest tests/benchmarks --benchmark-enable --benchmark-json=FILE`.

In any other run each is called once. docs/regression_gate.md says how two files are compared.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.gate.compare_runs import GateOptions, gate_folders
from casl_bench.results.score_table import ScoreTable
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run


def watch(benchmark: BenchmarkFixture, work: Callable[[], object]) -> None:
    """Time it, and note the most memory that Python and numpy held meanwhile."""
    benchmark(work)
    tracemalloc.start()
    work()
    benchmark.extra_info["peak_memory_mb"] = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()


def test_calibration_kernel(benchmark: BenchmarkFixture) -> None:
    matrix = np.random.default_rng(0).standard_normal((200, 200))

    def work() -> None:
        product = matrix
        for _ in range(5):
            product = np.tanh(product @ matrix)

    watch(benchmark, work)


def test_unet_pass(benchmark: BenchmarkFixture) -> None:
    domain = toy_domain()
    x_t = torch.zeros(4, 3, 16, 16)
    watch(benchmark, lambda: domain.backbone.eps(x_t, 500))


def test_scores_from_npz(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    run = MadeUpRun({"casl": MadeUpMethod()}, concepts=("hat",))
    write_made_up_run(tmp_path / "run", run)
    data = next((tmp_path / "run").rglob("casl/hat/scores.npz")).read_bytes()
    watch(benchmark, lambda: ScoreTable.from_npz(data))


def test_gate_of_two_runs(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    for name in ("base", "head"):
        run = MadeUpRun({"casl": MadeUpMethod(picture_sd=0.1)}, concepts=("hat",))
        write_made_up_run(tmp_path / name, run)
    watch(benchmark, lambda: gate_folders(tmp_path / "base", tmp_path / "head", GateOptions()))
