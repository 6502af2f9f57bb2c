"""Speed in units of a kernel: another machine is no alert, a slower benchmark is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.gate.speed import speed_alerts


def write(path: Path, times: dict[str, float], memory: dict[str, float] | None = None) -> Path:
    rows = [
        {"name": n, "stats": {"median": t}, "extra_info": {"peak_memory_mb": (memory or {}).get(n)}}
        for n, t in times.items()
    ]
    path.write_text(json.dumps({"benchmarks": rows}), encoding="utf-8")
    return path


def test_a_slower_machine_is_no_alert(tmp_path: Path) -> None:
    base = write(tmp_path / "base.json", {"test_calibration_kernel": 1.0, "test_a": 2.0})
    head = write(tmp_path / "head.json", {"test_calibration_kernel": 1.7, "test_a": 3.4})
    assert speed_alerts(base, head) == []


def test_a_slower_or_larger_benchmark_is(tmp_path: Path) -> None:
    kernel = {"test_calibration_kernel": 1.0}
    base = write(tmp_path / "base.json", kernel | {"test_a": 2.0, "test_b": 1.0},
                 kernel | {"test_b": 100.0})  # fmt: skip
    head = write(tmp_path / "head.json", kernel | {"test_a": 3.0, "test_b": 1.1},
                 kernel | {"test_b": 200.0})  # fmt: skip
    found = [(a.name, a.ratio) for a in speed_alerts(base, head)]
    assert found == [("test_b (memory)", 2.0), ("test_a (time)", 1.5)]


def test_without_a_kernel_there_is_no_unit(tmp_path: Path) -> None:
    base = write(tmp_path / "base.json", {"test_a": 2.0})
    with pytest.raises(UsageError, match="calibration_kernel"):
        speed_alerts(base, base)
    with pytest.raises(UsageError, match="not a file of pytest-benchmark"):
        speed_alerts(tmp_path / "none.json", base)
