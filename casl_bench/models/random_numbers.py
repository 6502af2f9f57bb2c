"""Random tensors whose stream belongs to a purpose and an image, never to a place in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from casl_bench.core.seeding import derive_seed


def generator(run_seed: int, purpose: str, *keys: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`."""
    return torch.Generator("cpu").manual_seed(derive_seed(run_seed, purpose, *keys))


def image_noise(
    shape: Sequence[int], image_ids: Sequence[str], run_seed: int, purpose: str
) -> Tensor:
    """Standard normal noise [n, *shape] float32 on the CPU, an independent stream for each image.

    `shape` is of one image's noise, e.g. (3, 64, 64); another purpose is another stream.
    """
    rows = [torch.randn(tuple(shape), generator=generator(run_seed, purpose, i)) for i in image_ids]
    return torch.stack(rows) if rows else torch.empty(0, *shape)
