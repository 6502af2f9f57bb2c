"""A finished command given once more: seconds until it is over, imports included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).parents[2]


def test_rerun(benchmark: BenchmarkFixture, tmp_path: Path, full_size: bool) -> None:
    if not full_size:
        pytest.skip("runs all methods first, minutes: set CASL_BENCH_FULL_SIZE=1")

    def said(*options: str) -> str:
        done = subprocess.run(
            [sys.executable, *options, str(ROOT / "benchmark.py"), "--quick", "--concepts", "hat",
             "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def seconds() -> float:
        began = time.monotonic()
        assert "finished before" in said()
        return time.monotonic() - began

    assert "U-Net passes" in said()
    again = benchmark.pedantic(seconds, rounds=1)
    imported = [line.split("|")[-1].strip() for line in said("-X", "importtime").splitlines()]
    # Without torch no network can have been run.
    assert "casl_bench.core.errors" in imported and "torch" not in imported
    benchmark.extra_info.update({"seconds": again, "ratio": again, "target": "<= 5"})
