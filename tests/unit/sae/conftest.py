"""Activations made of known sparse directions, small enough to fit in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor


class SparseActivations:
    """h [n, 16, 4, 4] at three timesteps: sparse sums of 24 directions, shifted and scaled by t."""

    timesteps = (0, 100, 400)

    def __init__(self, images: int, seed: int) -> None:
        domain = torch.Generator().manual_seed(0)
        directions = torch.randn(24, 16, generator=domain)
        directions /= directions.norm(dim=1, keepdim=True)
        draw = torch.Generator().manual_seed(seed)
        self.maps = []
        for step in range(len(self.timesteps)):
            shape = (images * 16, 24)
            z = (torch.rand(shape, generator=draw) < 0.1) * torch.rand(shape, generator=draw)
            rows = (z @ directions) * (1 + step) + step
            self.maps.append(rows.view(images, 16, 16).transpose(1, 2).reshape(images, 16, 4, 4))

    def __len__(self) -> int:
        return len(self.maps[0])

    def h(self, step: int, rows: slice | Tensor | None = None) -> Tensor:
        return self.maps[step] if rows is None else self.maps[step][rows]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small are no work to share: on a busy machine sharing takes 30 times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def activations() -> Callable[[int, int], SparseActivations]:
    """(images, seed) → activations."""
    return SparseActivations
