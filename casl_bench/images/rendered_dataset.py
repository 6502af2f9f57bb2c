"""A data set of rendered pictures: splits, labels and true counterfactuals of one drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import InputError, unknown_name
from casl_bench.core.seeding import derive_seed
from casl_bench.images.dataset import DatasetCard, ImageBatch, Split
from casl_bench.images.drawing import IMAGE_SIZE, Drawing, Factors

_FLIPPED_KEPT = 1000
"""Flipped pictures that are kept, 12 kB each; a call may draw more."""

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, H, W, 3] in [0, 255] → float32 [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class RenderedDataset:
    """Pictures drawn on request: `<split>-<number>` is an image's id, and all it depends on.

    Args:
        drawing: the renderer.
        seed: of the data set; one seed has three splits that share no picture.
    """

    def __init__(self, drawing: Drawing, seed: int = 0) -> None:
        self._drawing, self._seed = drawing, seed
        self._flipped: dict[tuple[str, str], NDArray[np.uint8]] = {}
        self.card = DatasetCard(
            name=drawing.name,
            world="synth",
            revision=drawing.revision[:12],
            resolution=IMAGE_SIZE,
            attributes=drawing.attributes,
            concepts=drawing.concepts,
            description=f"Drawn {drawing.subject} of {IMAGE_SIZE}×{IMAGE_SIZE} pixels with "
            f"{len(drawing.attributes)} independent binary attributes over continuous nuisance "
            "factors; any attribute can be flipped, all else equal.",
            licence="Apache-2.0",
            source=drawing.source,
        )

    def load(self, split: Split, count: int) -> ImageBatch:
        """The first `count` images of a split: always the same ones, in the same order.

        Raises:
            InputError: there is no such split, or the count is negative.
        """
        if split not in _SPLITS:
            raise unknown_name("split", split, _SPLITS)
        if count < 0:
            raise InputError(f"a count of {count} images")
        ids = tuple(f"{split}-{number:06d}" for number in range(count))
        factors = self._factors(ids)
        pixels = to_pixels(self._drawing.render(factors))
        return ImageBatch(ids, pixels, torch.from_numpy(factors.attributes.copy()))

    def oracle(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """The same images with this one attribute flipped: [n, 3, H, W] float32 in [-1, 1].

        Raises:
            UsageError: there is no such attribute.
            InputError: an id is not of this data set.
        """
        self._drawing.index(attribute)
        # Edits of a concept by every method are compared with the same pictures.
        if len(self._flipped) > _FLIPPED_KEPT:
            self._flipped.clear()
        new = [i for i in dict.fromkeys(image_ids) if (i, attribute) not in self._flipped]
        factors = self._drawing.flipped(self._factors(new), attribute)
        for image_id, image in zip(new, self._drawing.render(factors), strict=True):
            self._flipped[image_id, attribute] = image
        found = [self._flipped[image_id, attribute] for image_id in image_ids]
        return to_pixels(np.stack(found) if found else self._drawing.render(factors))

    def _factors(self, image_ids: Sequence[str]) -> Factors:
        rows = [self._one(image_id) for image_id in image_ids]
        if not rows:
            return self._drawing.sample(np.empty(0, dtype=np.int64), self._seed)
        return Factors(
            np.concatenate([r.image_ids for r in rows]),
            np.concatenate([r.attributes for r in rows]),
            np.concatenate([r.nuisance for r in rows]),
        )

    def _one(self, image_id: str) -> Factors:
        split, _, number = image_id.rpartition("-")
        if split not in _SPLITS or not number.isdecimal():
            raise InputError(
                f"'{image_id}' is no image of {self.card.name}", mend="ids look like test-000012"
            )
        stream = derive_seed(self._seed, self.card.name, split)
        return self._drawing.sample(np.array([int(number)]), stream)
