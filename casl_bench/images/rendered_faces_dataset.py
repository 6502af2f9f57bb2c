"""The `rendered_faces` data set: drawn portraits with known factors and a true counterfactual."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.content_hash import hash_file, hash_json
from casl_bench.core.errors import InputError, unknown_name
from casl_bench.core.seeding import derive_seed
from casl_bench.images import rendered_faces, shapes
from casl_bench.images.dataset import DATASETS, Concept, DatasetCard, ImageBatch, Split
from casl_bench.images.rendered_faces import ATTRIBUTES, IMAGE_SIZE, FaceFactors

CONCEPTS: tuple[Concept, ...] = (
    Concept("smiling", "a sad face", "a smiling face", "smiling"),
    Concept("eyeglasses", "a face without eyeglasses", "a face with eyeglasses", "eyeglasses"),
    Concept("beard", "a face without a beard", "a face with a beard", "beard"),
    Concept("hat", "a face without a hat", "a face with a hat", "hat"),
    Concept("blond", "a face with dark hair", "a face with blond hair", "blond"),
    Concept("bangs", "a face without bangs", "a face with bangs", "bangs"),
    Concept("mouth_open", "a face with a closed mouth", "a face with an open mouth", "mouth_open"),
    Concept("pale", "a face with tan skin", "a face with pale skin", "pale"),
)
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, H, W, 3] in [0, 255] → float32 [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def renderer_hash() -> str:
    """SHA-256 over the renderer's source files, hex: changes whenever a pixel may."""
    sources = [Path(str(module.__file__)) for module in (rendered_faces, shapes)]
    return hash_json([hash_file(path) for path in sources])


class RenderedFaces:
    """Portraits drawn on request: `<split>-<number>` is an image's id, and all it depends on.

    Args:
        seed: of the data set; one seed has three splits that share no picture.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.card = DatasetCard(
            name="rendered_faces",
            world="synth",
            revision=renderer_hash()[:12],
            resolution=IMAGE_SIZE,
            attributes=ATTRIBUTES,
            concepts=CONCEPTS,
            description="Drawn portraits of 64×64 pixels with eight independent binary attributes "
            "over continuous nuisance factors; any attribute can be flipped, all else equal.",
            licence="Apache-2.0",
            source="casl_bench.images.rendered_faces",
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
        pixels = to_pixels(rendered_faces.render(factors))
        return ImageBatch(ids, pixels, torch.from_numpy(factors.attributes.copy()))

    def oracle(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """The same images with this one attribute flipped: [n, 3, H, W] float32 in [-1, 1].

        Raises:
            UsageError: there is no such attribute.
            InputError: an id is not of this data set.
        """
        if attribute not in ATTRIBUTES:
            raise unknown_name("attribute", attribute, ATTRIBUTES)
        return to_pixels(rendered_faces.render(self._factors(image_ids).flipped(attribute)))

    def _factors(self, image_ids: Sequence[str]) -> FaceFactors:
        rows = [self._one(image_id) for image_id in image_ids]
        if not rows:
            return rendered_faces.sample_factors(np.empty(0, dtype=np.int64), self._seed)
        return FaceFactors(
            np.concatenate([r.image_ids for r in rows]),
            np.concatenate([r.attributes for r in rows]),
            np.concatenate([r.nuisance for r in rows]),
        )

    def _one(self, image_id: str) -> FaceFactors:
        split, _, number = image_id.rpartition("-")
        if split not in _SPLITS or not number.isdecimal():
            raise InputError(
                f"'{image_id}' is no image of rendered_faces", mend="ids look like test-000012"
            )
        stream = derive_seed(self._seed, "rendered_faces", split)
        return rendered_faces.sample_factors(np.array([int(number)]), stream)


DATASETS.register("rendered_faces", RenderedFaces)
