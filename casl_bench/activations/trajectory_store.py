"""x_t and h at every timestep of an inversion, in memory-mapped files or in memory.

What methods and SAEs learn from. Files are mapped only while they are read, so a store much larger
than memory costs no memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.backbones.backbone import EncoderState
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import write_json

INDEX_FILE = "index.json"


class TrajectoryStore:
    """[steps, n, ...] float32 arrays of x_t and h. Made by `create` or `open`.

    Attributes:
        image_ids: n ids.
        timesteps: increasing, as visited.
        refined: whether the inversion was refined (`ddim_inversion`): each x_t was then reached
            with the eps at itself, else with the eps at the x_t before it.
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        timesteps: Sequence[int],
        arrays: dict[str, NDArray[np.float32] | Path],
        refined: bool = False,
    ) -> None:
        self.image_ids = tuple(image_ids)
        self.timesteps = tuple(timesteps)
        self._arrays = arrays
        self.refined = refined

    @classmethod
    def create(
        cls,
        folder: Path | None,
        image_ids: Sequence[str],
        timesteps: Sequence[int],
        image_shape: Sequence[int],
        h_shape: Sequence[int],
        refined: bool = False,
    ) -> TrajectoryStore:
        """An empty store, to be filled by `record` and, where it has a folder, closed by `finish`.

        Args:
            folder: where its files go; None keeps it in memory.
            image_ids: n ids.
            timesteps: increasing.
            image_shape: (3, H, W).
            h_shape: (C, h, w).
            refined: whether the inversion to be recorded is.
        """
        lead = (len(timesteps), len(image_ids))
        shapes = {"x_t": (*lead, *image_shape), "h": (*lead, *h_shape)}
        arrays: dict[str, NDArray[np.float32] | Path] = {}
        for name, shape in shapes.items():
            if folder is None:
                arrays[name] = np.zeros(shape, np.float32)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX_FILE).unlink(missing_ok=True)
            path = folder / f"{name}.npy"
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            arrays[name] = path
        return cls(image_ids, timesteps, arrays, refined)

    @classmethod
    def open(cls, folder: Path) -> TrajectoryStore:
        """A finished store.

        Raises:
            InvalidBenchmarkError: if the store is absent, unfinished or damaged.
        """
        try:
            index = json.loads((folder / INDEX_FILE).read_text("utf-8"))
            paths = {name: folder / f"{name}.npy" for name in ("x_t", "h")}
            for name, path in paths.items():
                array = np.load(path, mmap_mode="r")
                if list(array.shape) != index["shapes"][name] or array.dtype != np.float32:
                    raise ValueError(f"{path.name} is {array.dtype} {list(array.shape)}")
            return cls(index["image_ids"], index["timesteps"], dict(paths), index["refined"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidBenchmarkError(
                f"unusable stored trajectories: {error}",
                where=str(folder),
                mend="delete the folder, it is made anew",
            ) from error

    def record(self, step: int, rows: slice, state: EncoderState) -> None:
        """Keep what an inversion saw: an `inverter.Collect`.

        Args:
            step: place in `timesteps`.
            rows: the images' places in `image_ids`.
            state: their encoder state.
        """
        if state.t != self.timesteps[step]:
            raise InputError(f"step {step} is t = {self.timesteps[step]}, got t = {state.t}")
        self._array("x_t", "r+")[step, rows] = state.x_t.cpu().numpy()
        self._array("h", "r+")[step, rows] = state.h.cpu().numpy()

    def finish(self) -> None:
        """Declare the files complete; a no-op for a store in memory."""
        path = self._arrays["x_t"]
        if not isinstance(path, Path):
            return
        shapes = {name: list(self._array(name, "r").shape) for name in self._arrays}
        index: dict[str, Any] = {
            "image_ids": list(self.image_ids),
            "timesteps": list(self.timesteps),
            "refined": self.refined,
            "shapes": shapes,
        }
        write_json(path.parent / INDEX_FILE, index)

    def __len__(self) -> int:
        return len(self.image_ids)

    def x_t(self, step: int) -> Tensor:
        """[n, 3, H, W] at place `step` of the timesteps; index it to read only some rows.

        Not to be changed in place.
        """
        return torch.from_numpy(self._array("x_t", "c")[step])

    def h(self, step: int) -> Tensor:
        """[n, C, h, w] at place `step` of the timesteps; index it to read only some rows.

        Not to be changed in place.
        """
        return torch.from_numpy(self._array("h", "c")[step])

    def _array(self, name: str, mode: Literal["r", "r+", "c"]) -> NDArray[np.float32]:
        # "c" is copy on write: PyTorch warns of arrays that cannot be written.
        array = self._arrays[name]
        if not isinstance(array, Path):
            return array
        mapped: NDArray[np.float32] = np.load(array, mmap_mode=mode)
        return mapped
