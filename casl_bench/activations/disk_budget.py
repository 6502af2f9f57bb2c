"""What stored trajectories take on disk, and whether that is allowed and there.

At 256 pixels an image takes 0.92 MB a timestep: a thousand of them, 40 timesteps each, take 37 GB.
Too little room is told before the first byte is written.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from casl_bench.core.errors import UsageError

DISK_BUDGET_GB = 200.0
"""Trajectories of one cache take at most this much, unless the variable below says other."""

DISK_BUDGET_VARIABLE = "CASL_BENCH_DISK_BUDGET_GB"
"""Environment variable with another budget, in GB (10⁹ bytes)."""

GB = 10**9
_MOST_GB = 1e9
_FLOAT = 4


def store_bytes(images: int, steps: int, image_shape: Sequence[int], h_shape: Sequence[int]) -> int:
    """Bytes of a `TrajectoryStore`: x_t and h of every image at every timestep, float32.

    Args:
        images: how many.
        steps: visited timesteps.
        image_shape: (3, H, W).
        h_shape: (C, h, w).
    """
    return images * steps * (math.prod(image_shape) + math.prod(h_shape)) * _FLOAT


def disk_budget() -> int:
    """The budget of a cache, in bytes.

    Raises:
        UsageError: if the environment variable holds no number above 0.
    """
    text = os.environ.get(DISK_BUDGET_VARIABLE, "").strip()
    if not text:
        return round(DISK_BUDGET_GB * GB)
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not 0 < budget <= _MOST_GB:
        raise UsageError(
            f"'{text}' is no disk budget", where=DISK_BUDGET_VARIABLE, mend="give GB, e.g. 200"
        )
    return round(budget * GB)


def trajectory_bytes(folder: Path) -> int:
    """Bytes that trajectories take in a folder and below; 0 where it does not exist."""
    files = (path for name in ("x_t", "h") for path in folder.rglob(f"{name}-*.npy"))
    return sum(path.stat().st_size for path in files)


def check_disk(needed: int, folder: Path, budget: int) -> None:
    """Refuse to begin what cannot end.

    Args:
        needed: bytes to be written.
        folder: where; it need not exist yet.
        budget: bytes that are left of what is allowed.

    Raises:
        UsageError: if the budget or the free space of the disk is smaller.
    """
    if needed > budget:
        raise UsageError(
            f"stored trajectories need {needed / GB:.1f} GB, the disk budget leaves "
            f"{max(budget, 0) / GB:.1f} GB",
            where=str(folder),
            mend=f"set {DISK_BUDGET_VARIABLE} higher, prune the cache, or use a suite of fewer "
            "train images",
        )
    free = shutil.disk_usage(_existing(folder)).free
    if needed > free:
        raise UsageError(
            f"stored trajectories need {needed / GB:.1f} GB, the disk has {free / GB:.1f} GB free",
            where=str(folder),
            mend="free it, choose another --cache, or use a suite of fewer train images",
        )


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
