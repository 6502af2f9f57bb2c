"""Speed and memory of two pytest-benchmark runs, in units of a calibration kernel of each run.

Machines of CI differ by more than most changes do. To divide by what a kernel of fixed work took in
the same run takes most of that out. The rest is still no ground for a verdict: this only alerts.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from casl_bench.core.errors import UsageError
from casl_bench.core.files import read_json
from casl_bench.gate.verdict import Alert

KERNEL = "calibration_kernel"
"""A benchmark with this in its name is the unit."""

SLOWER = 1.2
"""Ratio of ratios from which on there is an alert."""

MEMORY = "peak_memory_mb"
"""Under this name a benchmark's `extra_info` may hold its peak memory."""


class _Stats(BaseModel):
    median: float = Field(gt=0)


class _Benchmark(BaseModel):
    name: str
    stats: _Stats
    extra_info: dict[str, object] = {}

    @property
    def memory(self) -> float | None:
        value = self.extra_info.get(MEMORY)
        return float(value) if isinstance(value, int | float) and value > 0 else None


class _File(BaseModel):
    benchmarks: list[_Benchmark]


def read_ratios(path: Path) -> dict[str, float]:
    """Benchmark and quantity, as in "name (time)" → its value over the kernel's.

    Args:
        path: what `pytest --benchmark-json` wrote.

    Raises:
        UsageError: if it is no such file, or has no calibration kernel.
    """
    try:
        found = _File.model_validate(read_json(path)).benchmarks
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError("not a file of pytest-benchmark", where=str(path)) from error
    kernel = next((b for b in found if KERNEL in b.name), None)
    if kernel is None:
        raise UsageError(f"no benchmark is named '{KERNEL}'", where=str(path), mend="add one")
    ratios = {}
    for benchmark in found:
        if benchmark is kernel:
            continue
        ratios[f"{benchmark.name} (time)"] = benchmark.stats.median / kernel.stats.median
        if benchmark.memory is not None and kernel.memory is not None:
            ratios[f"{benchmark.name} (memory)"] = benchmark.memory / kernel.memory
    return ratios


def speed_alerts(base: Path, head: Path, threshold: float = SLOWER) -> list[Alert]:
    """What takes more than `threshold` times the base's time or memory, in units of the kernel.

    Args:
        base: benchmarks of the base.
        head: those of the head.
        threshold: ratio from which on there is an alert, over 1.

    Raises:
        UsageError: as `read_ratios`.
    """
    was, now = read_ratios(base), read_ratios(head)
    alerts = []
    for name in was.keys() & now.keys():
        ratio = now[name] / was[name]
        if ratio > threshold:
            text = f"{ratio:.2f} times the base's, in units of the calibration kernel"
            alerts.append(Alert(name=name, ratio=ratio, text=text))
    return sorted(alerts, key=lambda alert: (-alert.ratio, alert.name))
