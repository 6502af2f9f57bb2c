"""x_t and h at every timestep of an inversion, in memory-mapped files or in memory.

What methods and SAEs learn from. The files are cut by images (`sharded_array`) and mapped only
while they are read, so a store much larger than memory costs no memory, provided that its readers
name the rows that they want.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import read_json, write_json
from casl_bench.diffusion.sharded_array import Rows, ShardedArray, images_per_shard
from casl_bench.models.backbone import EncoderState

DISK_BUDGET_GB = 200.0
"""Trajectories of one cache take at most this much, unless the variable below says other."""

DISK_BUDGET_VARIABLE = "CASL_BENCH_DISK_BUDGET_GB"
"""Environment variable with another budget, in GB (10⁹ bytes)."""

INDEX_FILE = "index.json"
GB = 10**9
_MOST_GB = 1e9
_FLOAT = 4


def store_bytes(images: int, steps: int, image_shape: Sequence[int], h_shape: Sequence[int]) -> int:
    """Bytes of a `TrajectoryStore`: x_t and h of every image at every timestep, float32."""
    return images * steps * (math.prod(image_shape) + math.prod(h_shape)) * _FLOAT


def disk_budget() -> int:
    """The budget of a cache, in bytes. Raises UsageError: the variable holds no number above 0."""
    text = os.environ.get(DISK_BUDGET_VARIABLE, "").strip()
    if not text:
        return round(DISK_BUDGET_GB * GB)
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not 0 < budget <= _MOST_GB:
        raise UsageError(
            f"'{text}' is no disk budget", where=DISK_BUDGET_VARIABLE, hint="give GB, e.g. 200"
        )
    return round(budget * GB)


def trajectory_bytes(folder: Path) -> int:
    """Bytes that trajectories take in a folder and below; 0 where it does not exist."""
    files = (path for name in ("x_t", "h") for path in folder.rglob(f"{name}-*.npy"))
    return sum(path.stat().st_size for path in files)


def check_disk(needed: int, folder: Path, budget: int) -> None:
    """Refuse to begin what cannot end: UsageError if budget or free space are below `needed` bytes.

    The folder need not exist yet; the budget is what is left of what is allowed.
    """
    if needed > budget:
        raise UsageError(
            f"stored trajectories need {needed / GB:.1f} GB, the disk budget leaves "
            f"{max(budget, 0) / GB:.1f} GB",
            where=str(folder),
            hint=f"set {DISK_BUDGET_VARIABLE} higher, prune the cache, or use a suite of fewer "
            "train images",
        )
    folder = folder.absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UsageError(
            f"stored trajectories need {needed / GB:.1f} GB, the disk has {free / GB:.1f} GB free",
            where=str(folder),
            hint="free it, choose another --cache, or use a suite of fewer train images",
        )


class TrajectoryStore:
    """[steps, n, ...] float32 arrays of x_t and h. Made by `create` or `open`.

    Attributes:
        image_ids: n ids.
        timesteps: increasing, as visited.
        shard_images: images per file; n or more in memory.
    """

    def __init__(
        self,
        folder: Path | None,
        image_ids: Sequence[str],
        timesteps: Sequence[int],
        shapes: dict[str, Sequence[int]],
        shard_images: int,
        check: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self.image_ids = tuple(image_ids)
        self.timesteps = tuple(timesteps)
        self.shard_images = shard_images
        self._folder = folder
        steps, images = len(self.timesteps), len(self.image_ids)
        self._arrays = {
            name: ShardedArray(name, folder, steps, images, shape, shard_images, check)
            for name, shape in shapes.items()
        }

    @classmethod
    def create(
        cls,
        folder: Path | None,
        image_ids: Sequence[str],
        timesteps: Sequence[int],
        image_shape: Sequence[int],
        h_shape: Sequence[int],
        *,
        shard_images: int | None = None,
        max_disk_bytes: int | None = None,
    ) -> TrajectoryStore:
        """A store to be filled by `record` and, where it has a folder, closed by `finish`.

        Files of the same shape that are there already are kept: an interrupted collection goes on
        with the rows that it `holds`. Without a folder it is kept in memory. `image_shape` is (3,
        H, W), `h_shape` (C, h, w). Without `shard_images` a file holds as many images as keep it
        under 256 MB. Raises UsageError if it would take more than `max_disk_bytes`, by default
        `disk_budget`, or than the disk has free.
        """
        steps = len(timesteps)
        if folder is not None:
            needed = store_bytes(len(image_ids), steps, image_shape, h_shape)
            budget = disk_budget() if max_disk_bytes is None else max_disk_bytes
            there = min(trajectory_bytes(folder), needed)
            check_disk(needed - there, folder, budget - there)
            (folder / INDEX_FILE).unlink(missing_ok=True)
        return cls(
            folder,
            image_ids,
            timesteps,
            {"x_t": image_shape, "h": h_shape},
            shard_images or images_per_shard(steps, image_shape),
        )

    @classmethod
    def open(
        cls, folder: Path, check: Callable[[Path], None] = lambda path: None
    ) -> TrajectoryStore:
        """A finished store. `check` is called with each file before it is first read.

        Raises InvalidBenchmarkError if the store is absent, unfinished or damaged.
        """
        try:
            index = read_json(folder / INDEX_FILE)
            store = cls(
                folder,
                index["image_ids"],
                index["timesteps"],
                {name: index["shapes"][name] for name in ("x_t", "h")},
                index["shard_images"],
                check,
            )
            if index["shards"] != store._file_names():
                raise ValueError("its index names other files")
            for array in store._arrays.values():
                array.check()
            return store
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidBenchmarkError(
                f"unusable stored trajectories: {error}",
                where=str(folder),
                hint="delete the folder, it is made anew",
            ) from error

    def record(self, step: int, rows: slice, state: EncoderState) -> None:
        """Keep what an inversion saw of rows at a place in `timesteps`: an `inversion.Collect`."""
        if state.t != self.timesteps[step]:
            raise InputError(f"step {step} is t = {self.timesteps[step]}, got t = {state.t}")
        self._arrays["x_t"].write(step, rows, state.x_t.cpu().numpy())
        self._arrays["h"].write(step, rows, state.h.cpu().numpy())

    def holds(self, rows: slice) -> bool:
        """Whether there are files for these rows; what they hold is the caller's to know."""
        return all(array.holds(rows) for array in self._arrays.values())

    def sync(self, rows: slice) -> None:
        """Have these rows' files put on the disk, before something says that they are complete."""
        for array in self._arrays.values():
            array.sync(rows)

    def finish(self) -> None:
        """Declare the files complete; a no-op for a store in memory."""
        if self._folder is None:
            return
        index: dict[str, Any] = {
            "image_ids": list(self.image_ids),
            "timesteps": list(self.timesteps),
            "shapes": {name: list(array.shape) for name, array in self._arrays.items()},
            "shard_images": self.shard_images,
            "shards": self._file_names(),
        }
        write_json(self._folder / INDEX_FILE, index)

    def __len__(self) -> int:
        return len(self.image_ids)

    def x_t(self, step: int, rows: Rows | None = None) -> Tensor:
        """[m, 3, H, W] at place `step` of the timesteps, of rows in this order. Not to be changed.

        Without rows it is all of them, which at 256 pixels is much.
        """
        return self._arrays["x_t"].read(step, rows)

    def h(self, step: int, rows: Rows | None = None) -> Tensor:
        """[m, C, h, w] at place `step` of the timesteps; otherwise as `x_t`."""
        return self._arrays["h"].read(step, rows)

    def _file_names(self) -> list[str]:
        return [path.name for array in self._arrays.values() for path in array.paths]
