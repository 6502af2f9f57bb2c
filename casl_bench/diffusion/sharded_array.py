"""One array over images, cut into files of so many images each; reading touches asked rows only.

A file is mapped only while it is read or written: an array much larger than memory costs none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.core.files import unwritable

SHARD_BYTES = 256 * 10**6
"""A file holds at most this much, but always one image."""

Rows = slice | Sequence[int] | Tensor
"""Places of images: a slice without step, integers (repeats allowed) or a mask."""


def images_per_shard(steps: int, shape: Sequence[int]) -> int:
    """How many images [steps, *shape] float32 one file holds."""
    return max(1, SHARD_BYTES // (4 * steps * math.prod(shape)))


class ShardedArray:
    """[steps, n, *shape] float32, in files `NAME-00000.npy` … of a folder, or in memory.

    In memory there is one shard, zeros at first. `check` is called with each file before it is
    first read or written.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None,
        steps: int,
        images: int,
        shape: Sequence[int],
        per_shard: int,
        check: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._check, self._checked = check, set[int]()
        self._name, self._folder, self._steps, self.images = name, folder, steps, images
        self.shape = tuple(shape)
        self._per_shard = per_shard if folder is not None else max(1, images)
        self._offsets: dict[int, int] = {}  # of the numbers in a file, known once it was opened
        self._memory: NDArray[np.float32] | None = None
        if folder is None:
            self._memory = np.zeros((steps, images, *self.shape), np.float32)

    @property
    def paths(self) -> list[Path]:
        """Its files, in order; none in memory."""
        if self._folder is None:
            return []
        return [self._path(shard) for shard in range(math.ceil(self.images / self._per_shard))]

    def check(self) -> None:
        """Raises OSError or ValueError where a file is absent, damaged or of another shape."""
        for shard in range(len(self.paths)):
            self._opened(shard)

    def holds(self, rows: slice) -> bool:
        """Whether the files of these rows are there, of the right shape."""
        return self._memory is None and all(map(self._is_whole, self._shards_of(rows)))

    def write(self, step: int, rows: slice, values: NDArray[np.float32]) -> None:
        """Set rows at one step; their files are made, at full size, where they are not there.

        Raises UsageError if the disk is full or cannot be written.
        """
        for shard in self._shards_of(rows):
            if self._memory is None and not self._is_whole(shard):
                self._allocate(shard)
            first = shard * self._per_shard
            start, stop = max(rows.start, first), min(rows.stop, first + self._per_shard)
            target = self._mapped(shard, "r+")
            target[step, start - first : stop - first] = values[
                start - rows.start : stop - rows.start
            ]

    def sync(self, rows: slice) -> None:
        """Have the operating system put the files of these rows on the disk."""
        if self._memory is not None:
            return
        for shard in self._shards_of(rows):
            with self._path(shard).open("rb+") as file:
                os.fsync(file.fileno())

    def read(self, step: int, rows: Rows | None = None) -> Tensor:
        """[m, *shape] at one step: the rows asked for, all n where none are named.

        What lies in one file and is asked for by a slice stays on disk until it is used. Raises
        InputError if a place is outside [0, n).
        """
        if rows is None:
            rows = slice(0, self.images)
        if isinstance(rows, slice):
            start, stop, stride = rows.indices(self.images)
            first, last = start // self._per_shard, max(stop - 1, start) // self._per_shard
            if first == last and stride == 1:
                begin = first * self._per_shard
                # "c" is copy on write: PyTorch warns of arrays that cannot be written.
                found = self._mapped(first, "c")[step, start - begin : max(stop, start) - begin]
                return torch.from_numpy(found)
            places = np.arange(start, stop, stride)
        else:
            places = self._places(rows)
        result = np.empty((len(places), *self.shape), np.float32)
        shards = places // self._per_shard
        for shard in np.unique(shards).tolist():
            here = shards == shard
            result[here] = self._mapped(shard, "r")[step][places[here] - shard * self._per_shard]
        return torch.from_numpy(result)

    def _places(self, rows: Sequence[int] | Tensor) -> NDArray[np.int64]:
        index = torch.as_tensor(rows).cpu()
        if index.dtype == torch.bool:
            if len(index) != self.images:
                raise InputError(f"a mask of {len(index)} places for {self.images} images")
            index = index.nonzero().flatten()
        places = index.to(torch.int64).numpy()
        if len(places) and not 0 <= places.min() <= places.max() < self.images:
            raise InputError(f"places must lie in [0, {self.images})")
        return places

    def _shards_of(self, rows: slice) -> Iterator[int]:
        last = (rows.stop - 1) // self._per_shard
        yield from range(rows.start // self._per_shard, last + 1)

    def _shape_of(self, shard: int) -> tuple[int, ...]:
        images = min(self._per_shard, self.images - shard * self._per_shard)
        return (self._steps, images, *self.shape)

    def _path(self, shard: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._name}-{shard:05d}.npy"

    def _opened(self, shard: int) -> None:
        path = self._path(shard)
        array = np.load(path, mmap_mode="r")
        if array.shape != self._shape_of(shard) or array.dtype != np.float32:
            raise ValueError(f"{path.name} is {array.dtype} {list(array.shape)}")
        self._offsets[shard] = array.offset

    def _is_whole(self, shard: int) -> bool:
        try:
            self._opened(shard)
            return True
        except (OSError, ValueError):
            return False

    def _allocate(self, shard: int) -> None:
        path = self._path(shard)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.lib.format.open_memmap(
                path, mode="w+", dtype=np.float32, shape=self._shape_of(shard)
            )
            if hasattr(os, "posix_fallocate"):
                # Reserved now: a mapped file that meets a full disk ends the process by a signal.
                with path.open("rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink(missing_ok=True)
            hint = "free the disk or choose another --cache"
            raise unwritable(path.parent, error, hint) from error

    def _mapped(self, shard: int, mode: Literal["r", "r+", "c"]) -> NDArray[np.float32]:
        if self._memory is not None:
            return self._memory
        if shard not in self._offsets:
            self._opened(shard)
        if shard not in self._checked:
            self._check(self._path(shard))
            self._checked.add(shard)
        offset, shape = self._offsets[shard], self._shape_of(shard)
        return np.memmap(self._path(shard), np.float32, mode, offset, shape)
