"""Training vectors of the SAE: single positions of h, from all images and visited timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.micro_batch import row_blocks

# Vectors taken from one map at a time: reading a map costs the same for one of its positions as
# for all, and too many from one map would make the vectors of a batch alike.
POSITIONS_PER_MAP = 16
_IMAGES_AT_ONCE = 64
_IN_MEMORY = 256 * 10**6
"""Activations of at most so many bytes are read once; larger ones stay on disk."""


class Activations(Protocol):
    """The part of a `TrajectoryStore` that an SAE learns from."""

    @property
    def timesteps(self) -> Sequence[int]:
        """Visited timesteps, increasing."""
        ...

    def __len__(self) -> int:
        """Images, n."""
        ...

    def h(self, step: int, rows: slice | Tensor | None = None) -> Tensor:
        """[m, C, h, w] at place `step` of the timesteps, of the images at these places or all."""
        ...


@dataclass(frozen=True)
class ActivationStatistics:
    """What h is normalised by: h_norm = (h - mean[step]) / scale[step].

    Attributes:
        timesteps: increasing.
        mean: [steps, C] float32.
        scale: [steps] float32, root mean square of h - mean; 1 where h never changes.
    """

    timesteps: tuple[int, ...]
    mean: Tensor
    scale: Tensor


def activation_statistics(activations: Activations) -> ActivationStatistics:
    """Mean and scale at every timestep, summed in float64.

    Raises:
        InvalidBenchmarkError: if activations hold NaN or infinity.
    """
    means, scales = [], []
    if not len(activations):
        raise InputError("an SAE needs at least one image")
    for step, t in enumerate(activations.timesteps):
        channels, height, width = activations.h(step, slice(0, 1)).shape[1:]
        count = len(activations) * height * width
        total = torch.zeros(channels, dtype=torch.float64)
        for rows in row_blocks(len(activations), _IMAGES_AT_ONCE):
            total += activations.h(step, rows).double().sum((0, 2, 3))
        mean = total / count
        squares = torch.zeros((), dtype=torch.float64)
        for rows in row_blocks(len(activations), _IMAGES_AT_ONCE):
            squares += ((activations.h(step, rows).double() - mean[:, None, None]) ** 2).sum()
        if not bool(torch.isfinite(squares)):
            raise InvalidBenchmarkError(f"activations at timestep {t} hold NaN or infinity")
        scale = (squares / (count * channels)).sqrt()
        means.append(mean)
        scales.append(scale if scale > 0 else torch.ones_like(scale))
    timesteps = tuple(int(t) for t in activations.timesteps)
    return ActivationStatistics(timesteps, torch.stack(means).float(), torch.stack(scales).float())


class ActivationSampler:
    """Draws batches of normalised vectors: uniform over timesteps, images and positions.

    Args:
        activations: n images at all visited timesteps.
        statistics: of the same activations.
    """

    def __init__(self, activations: Activations, statistics: ActivationStatistics) -> None:
        self._activations, self._statistics = activations, statistics
        steps = range(len(activations.timesteps))
        per_step = len(activations) * activations.h(0, slice(0, 1)).numel() * 4
        fits = per_step * len(steps) <= _IN_MEMORY
        self._kept = [activations.h(step).clone() for step in steps] if fits else None

    def _maps(self, step: int, images: Tensor) -> Tensor:
        """[m, C, h, w] of these images."""
        if self._kept is None:
            return self._activations.h(step, images)
        return self._kept[step][images]

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, C] float32; depends on the generator's state alone.

        Raises:
            InputError: if `count` is not a multiple of the vectors taken from one map.
        """
        n = len(self._activations)
        _, channels, height, width = self._activations.h(0, slice(0, 1)).shape
        positions = height * width
        per_map = min(POSITIONS_PER_MAP, positions)
        if count % per_map:
            raise InputError(f"batches must be multiples of {per_map}, got {count}")
        maps = count // per_map
        steps = torch.randint(len(self._activations.timesteps), (maps,), generator=generator)
        images = torch.randint(n, (maps,), generator=generator)
        places = torch.rand(maps, positions, generator=generator).argsort(1)[:, :per_map]
        batch = torch.empty(maps, per_map, channels)
        for step in steps.unique().tolist():
            rows = (steps == step).nonzero().flatten()
            chosen = self._maps(step, images[rows]).flatten(2)  # [rows, C, positions]
            index = places[rows, None, :].expand(-1, channels, -1)
            vectors = chosen.gather(2, index).transpose(1, 2)
            mean, scale = self._statistics.mean[step], self._statistics.scale[step]
            batch[rows] = (vectors - mean) / scale
        return batch.flatten(0, 1)
