"""Sixteen-pixel pictures with three known attributes: enough to run everything in a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import unknown_name
from casl_bench.core.seeding import derive_seed
from casl_bench.images.dataset import Concept, DatasetCard, ImageBatch, Split

IMAGE_SIZE = 16
STRIPE_ROWS = slice(13, 15)
ATTRIBUTES = ("bright", "red", "striped")

CARD = DatasetCard(
    name="toy_shapes",
    world="toy",
    revision="1",
    resolution=IMAGE_SIZE,
    attributes=ATTRIBUTES,
    concepts=tuple(Concept(a, "a square", f"a {a} square", a) for a in ATTRIBUTES),
    description="A square on a plain ground, drawn in numpy. For tests: its numbers mean nothing.",
    licence="Apache-2.0",
    source="ours",
)


class ToyShapes:
    """A square on a plain ground: `Dataset` and `SupportsOracle`.

    A picture is a function of its id alone: three fair coins, and where and how large the square
    is.
    """

    card = CARD

    def load(self, split: Split, count: int) -> ImageBatch:
        """The first `count` images of a split; there is no end to them."""
        ids = tuple(f"toy_{split}_{i:05d}" for i in range(count))
        factors = [_factors(i) for i in ids]
        labels = torch.from_numpy(np.array([coins for coins, _ in factors], bool).reshape(-1, 3))
        return ImageBatch(ids, _stack([_draw(*f) for f in factors]), labels)

    def oracle(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """The same pictures with one attribute flipped: [n, 3, 16, 16] in [-1, 1].

        Raises:
            UsageError: for an attribute that these pictures do not have.
        """
        if attribute not in ATTRIBUTES:
            raise unknown_name("attribute", attribute, ATTRIBUTES)
        flip = np.array([a == attribute for a in ATTRIBUTES])
        factors = [_factors(i) for i in image_ids]
        return _stack([_draw(coins ^ flip, nuisance) for coins, nuisance in factors])


def _factors(image_id: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(derive_seed(0, "toy picture", image_id))
    return rng.random(3) < 0.5, rng.random(3)


def _draw(coins: NDArray[np.bool_], nuisance: NDArray[np.float64]) -> NDArray[np.float32]:
    bright, red, striped = coins
    image = np.full((3, IMAGE_SIZE, IMAGE_SIZE), 0.5 if bright else -0.5, np.float32)
    top, left = (2 + int(4 * x) for x in nuisance[:2])
    side = 5 + int(4 * nuisance[2])
    colour = (0.9, -0.8, -0.8) if red else (-0.8, -0.8, 0.9)
    image[:, top : top + side, left : left + side] = np.array(colour, np.float32)[:, None, None]
    if striped:
        image[:, STRIPE_ROWS] = 0.9
    return image


def _stack(images: Sequence[NDArray[np.float32]]) -> Tensor:
    stacked = np.stack(images) if images else np.empty((0, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    return torch.from_numpy(stacked)
