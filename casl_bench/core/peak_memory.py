"""The most memory held at one time while a piece of work ran."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MB = 10**6
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")

_Reading = Callable[[], float | None]
"""Bytes, called when the work is over; None where nobody knows."""


@dataclass
class PeakMemory:
    """What `peak_memory` found, there once its block has ended without an error.

    Attributes:
        mb: in 10⁶ bytes; None where this machine does not tell.
    """

    mb: float | None = None


@contextmanager
def peak_memory(device: str = "cpu") -> Iterator[PeakMemory]:
    """Measure a block's peak. Blocks do not nest: an inner one would hide what came before it.

    On CUDA: memory of torch's tensors on that GPU, this block's and what was there already.
    On the CPU: resident memory of the whole process, interpreter, libraries and everything loaded
    before included. Linux keeps a high-water mark, which is set back first (so what `time -v`
    prints in the end is no longer that of the whole run). Elsewhere the only mark is that of
    the process's whole life, which says something of the block only where the block raised it.

    Args:
        device: a torch device, resolved.
    """
    found = PeakMemory()
    kind = device.split(":")[0]
    reading = {"cpu": _of_process, "cuda": lambda: _of_gpu(device)}.get(kind, _unknown)()
    yield found
    peak = reading()
    found.mb = None if peak is None else peak / MB


def _unknown() -> _Reading:
    return lambda: None


def _of_gpu(device: str) -> _Reading:
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)

    def reading() -> float:
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device))

    return reading


def _of_process() -> _Reading:
    try:
        _RESET.write_text("5")
        return _mark
    except OSError:
        before = _lifelong_mark()

    def reading() -> float | None:
        after = _lifelong_mark()
        return after if after is not None and before is not None and after > before else None

    return reading


def _mark() -> float | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return float(value.split()[0]) * 1024
    return None


def _lifelong_mark() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024)
