"""Two Dask workers of one thread against one such worker: wall time of the same run.

Workers are started and have imported everything beforehand; each run has a cache of its own.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import Execution, Suite

METHODS = ("asyrp", "h_linear", "casl")
CONCEPTS = ("hat", "eyeglasses", "beard", "blond")
"""Few images are enough where most of them lack the attribute."""


def test_two_workers(
    benchmark: BenchmarkFixture,
    run_domain,
    suite: Suite,
    full_size: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not full_size:
        pytest.skip("minutes: set CASL_BENCH_FULL_SIZE=1")
    distributed = pytest.importorskip("distributed", reason="comes with the extra 'cluster'")

    # So few images and steps let a method pass the oracle: its numbers mean nothing, its time does.
    monkeypatch.setattr("casl_bench.runs.merge.check_bounds", lambda records, where: None)
    few = suite.model_copy(update={"num_steps": 6, "strengths": (0.5, 1.5)})

    def seconds(workers: int) -> float:
        out = tmp_path / f"run-{workers}"
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):  # fmt: skip
            client.run(__import__, "casl_bench.runs.worker")
            execution = Execution(scheduler=cluster.scheduler_address)
            began = time.monotonic()
            run_domain(
                out, METHODS, SilentProgress(), concepts=CONCEPTS, suite=few, execution=execution,
                cache=tmp_path / f"cache-{workers}",
            )  # fmt: skip
            return time.monotonic() - began

    alone = seconds(1)
    together = benchmark.pedantic(seconds, args=(2,), rounds=1)
    benchmark.extra_info.update(
        {
            "seconds of one worker": alone,
            "seconds of two": together,
            "ratio": alone / together,
            "target": ">= 1.6",
        }
    )
