"""How much memory is free, and whether it was memory that a piece of work failed for."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from casl_bench.core.errors import UsageError, message_of

GB = 10**9
_GROUP = Path("/sys/fs/cgroup")
"""Of a container on Linux: what its processes may take together."""


def free_memory(device: str = "cpu") -> int:
    """Bytes that may still be taken on a resolved device.

    On CUDA what the GPU has left; elsewhere (MPS shares the machine's memory) what the machine can
    give without swapping, or the container, where that is less.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    left = _left_to_the_container()
    free = int(psutil.virtual_memory().available)
    return free if left is None else min(free, left)


def memory_of(device: str) -> int:
    """Bytes that a GPU has in all, whoever holds them."""
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _left_to_the_container() -> int | None:
    """Bytes; None where there is no limit, or it is unknown."""
    try:
        limit = (_GROUP / "memory.max").read_text("utf-8").strip()
        used = int((_GROUP / "memory.current").read_text("utf-8"))
        stat = (_GROUP / "memory.stat").read_text("utf-8").split()
        # Files that were read lately count as used, and are given up when memory is asked for.
        files = int(stat[stat.index("inactive_file") + 1])
        return None if limit == "max" else max(0, int(limit) - used + files)
    except (OSError, ValueError, IndexError):
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    if isinstance(error, MemoryError):
        return True
    # A GPU's error has a class of its own, the allocator of the CPU says it in words.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(w in message_of(error) for w in words)


@contextmanager
def oom_as_usage_error() -> Iterator[None]:
    """Turn an error for want of memory in the block into a UsageError with a hint."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            "out of memory",
            hint="free some, give fewer --jobs or a --device with more; then run the same command "
            "again to go on",
        ) from error


MB = 10**6
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")

_Reading = Callable[[], float | None]
"""Bytes, called when the work is over; None where unknown."""


@dataclass
class PeakMemory:
    """What `peak_memory` found, in 10⁶ bytes, once its block has ended; None where unknown."""

    mb: float | None = None


@contextmanager
def peak_memory(device: str = "cpu") -> Iterator[PeakMemory]:
    """Measure a block's peak on a resolved device. An inner block would hide what came before it.

    On CUDA: memory of torch's tensors on that GPU, this block's and what was there already.
    On the CPU: resident memory of the whole process, interpreter, libraries and everything loaded
    before included. Linux keeps a high-water mark, which is set back first (so what `time -v`
    prints in the end is no longer that of the whole run). Elsewhere the only mark is that of
    the process's whole life, which says something of the block only where the block raised it.
    """
    found = PeakMemory()
    kind = device.split(":")[0]
    reading = _of_gpu(device) if kind == "cuda" else _of_process() if kind == "cpu" else None
    yield found
    peak = reading() if reading else None
    found.mb = None if peak is None else peak / MB


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
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return float(found[1]) * 1024 if found else None


def _lifelong_mark() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024)
