"""How much memory is free, and whether it was memory that a piece of work failed for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from casl_bench.core.errors import UsageError

GB = 10**9
_GROUP = Path("/sys/fs/cgroup")
"""Of a container on Linux: what its processes may take together."""


def free_memory(device: str = "cpu") -> int:
    """Bytes that may still be taken on a device.

    On CUDA what the GPU has left; elsewhere (MPS shares the machine's memory) what the machine can
    give without swapping, or the container, where that is less.

    Args:
        device: a torch device, resolved.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    left = _left_to_the_container()
    free = int(psutil.virtual_memory().available)
    return free if left is None else min(free, left)


def _left_to_the_container() -> int | None:
    """Bytes; None where nothing limits it or nobody tells."""
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
    return isinstance(error, RuntimeError) and any(w in str(error) for w in words)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn an error for want of memory into one for people.

    Raises:
        UsageError: where memory runs out in the block.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            "out of memory",
            mend="free some, give fewer --jobs or a --device with more; then run the same command "
            "again to go on",
        ) from error
