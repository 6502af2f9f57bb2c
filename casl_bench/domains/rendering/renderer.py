"""What the renderers share: factors, how they are drawn at random, and many pictures at once.

A renderer is a class of pictures, pure in (attributes, nuisance), with the names of both.
Attributes are independent fair coins and nuisance factors are uniform, keyed by (seed, image id);
negating one attribute redraws the same subject with that alone changed, so the true counterfactual
of every edit is at hand.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from casl_bench.core.errors import InputError, unknown_name
from casl_bench.core.files import hash_bytes, hash_json
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.dataset import Concept, DatasetCard, ImageBatch, Split
from casl_bench.domains.rendering import shapes
from casl_bench.domains.rendering.shapes import FloatArray

IMAGE_SIZE = 64
"""Height and width of every rendered picture."""

REVISION_PICTURES = 24
PICTURES_OF_A_TASK = 256

GRAIN_SIGMA = 1.0
"""Standard deviation of the grain, in grey levels of 255."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What is drawn in each of n pictures.

    Attributes:
        image_ids: int64 [n], non-negative.
        attributes: bool [n, A], columns as in the drawing's `attributes`.
        nuisance: float32 [n, K] in [0, 1), columns as in the drawing's `nuisance`.
    """

    image_ids: NDArray[np.int64]
    attributes: NDArray[np.bool_]
    nuisance: FloatArray

    def __post_init__(self) -> None:
        n = len(self.image_ids)
        if len(self.attributes) != n or len(self.nuisance) != n:
            raise ValueError(
                f"{len(self.attributes)} rows of attributes and {len(self.nuisance)} of nuisance "
                f"for {n} images"
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Factors:
        return Factors(self.image_ids[index], self.attributes[index], self.nuisance[index])

    @classmethod
    def concatenated(cls, parts: Sequence[Factors]) -> Factors:
        """The pictures of one or more parts, one after another."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


class Picture:
    """One picture in the making: its factors by name, a canvas, and light from one side.

    A subclass names its factors and paints. Attributes are [A], nuisance is [K] in [0, 1].
    """

    attributes: ClassVar[tuple[str, ...]]
    nuisance: ClassVar[tuple[str, ...]]
    light_range: ClassVar[float] = 0.09
    """Of the light's strength, above 0.05."""

    def __init__(self, attributes: Sequence[bool], nuisance: Sequence[float]) -> None:
        self.on = dict(zip(self.attributes, attributes, strict=True))
        self.v = dict(zip(self.nuisance, nuisance, strict=True))
        self.canvas = shapes.Canvas(IMAGE_SIZE)
        angle = math.tau * self.v["light_direction"]
        strength = 0.05 + self.light_range * self.v["light_strength"]
        self.light = (strength * math.cos(angle), strength * (math.sin(angle) - 1.0) / 2.0)

    def paint(self) -> None:
        """Paint all on the canvas, from back to front."""
        raise NotImplementedError

    def draw(self) -> NDArray[np.uint8]:
        """uint8 [64, 64, 3], RGB, with grain as of film."""
        self.paint()
        # The grain's key is a nuisance factor, so an edited picture keeps its grain.
        key = int(self.v["grain"] * 2.0**24)
        return self.canvas.finish(shapes.film_grain(key, IMAGE_SIZE, GRAIN_SIGMA))

    def shaded(self, colour: FloatArray, w: shapes.Window) -> FloatArray:
        """A colour [3] lit from the picture's light; float32 [3, h, w]."""
        across, down = np.float32(self.light[0] / 16.0), np.float32(self.light[1] / 18.0)
        light: FloatArray = w.x * across + w.y * down + np.float32(1.0)
        return colour[:, None, None] * light


@dataclass(frozen=True)
class Drawing:
    """A renderer with its names.

    Attributes:
        subject: what is seen, in the plural: "portraits".
        attributes: names of the binary factors.
        nuisance: names of the continuous factors.
        scenery: those of the nuisance factors that belong to place and light, not to the subject.
        unread: those that are too fine or too often covered to be read off a picture.
        picture: draws; a class of a module, so that processes can share it.
        tuning_concepts: for tuning settings; no ranking uses them.
    """

    name: str
    subject: str
    attributes: tuple[str, ...]
    nuisance: tuple[str, ...]
    scenery: tuple[str, ...]
    unread: tuple[str, ...]
    concepts: tuple[Concept, ...]
    picture: type[Picture]
    tuning_concepts: tuple[Concept, ...] = ()

    @property
    def source(self) -> str:
        """The module that draws."""
        return self.picture.__module__

    @functools.cached_property
    def revision(self) -> str:
        """SHA-256, hex, of a fixed sample of pictures and of the names.

        The pixels are hashed, not the source: a machine that draws differently shows it.
        """
        sample = self.sample(np.arange(REVISION_PICTURES), seed=0)
        names = [self.attributes, self.nuisance]
        return hash_json([hash_bytes(self.render(sample).tobytes()), names])

    def index(self, attribute: str) -> int:
        """Column of an attribute; UsageError where there is none of that name."""
        if attribute not in self.attributes:
            raise unknown_name("attribute", attribute, self.attributes)
        return self.attributes.index(attribute)

    def flipped(
        self, factors: Factors, attribute: str, rows: slice | NDArray[np.int64] = slice(None)
    ) -> Factors:
        """The same pictures with an attribute negated, in some rows; UsageError for another one."""
        values = factors.attributes.copy()
        values[rows, self.index(attribute)] ^= True
        return replace(factors, attributes=values)

    def sample(self, image_ids: ArrayLike, seed: int) -> Factors:
        """Factors of pictures: attributes are fair coins, nuisance is uniform on [0, 1).

        Those of one picture depend on (seed, id) alone; ids are a row of non-negative integers,
        else ValueError, and the seed is taken modulo 2**64.
        """
        ids = np.asarray(image_ids)
        if ids.size == 0:
            ids = ids.astype(np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or (ids.size and ids.min() < 0):
            raise ValueError("image_ids must be one row of non-negative integers")
        ids = ids.astype(np.int64)
        split = len(self.attributes)
        words = shapes.hashed_words(ids, seed, split + len(self.nuisance))
        coins = (words[:, :split] >> np.uint64(63)).astype(np.bool_)
        # 24 bits fill a float32 exactly, so that the value never rounds up to 1.
        uniform = (words[:, split:] >> np.uint64(40)).astype(np.float32)
        return Factors(ids, coins, uniform * np.float32(2.0**-24))

    def render(self, factors: Factors) -> NDArray[np.uint8]:
        """Pictures uint8 [n, 64, 64, 3], RGB, each of its own factors alone, bit for bit."""
        images = np.empty((len(factors), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        rows = zip(factors.attributes.tolist(), factors.nuisance.tolist(), strict=True)
        for index, (attributes, nuisance) in enumerate(rows):
            images[index] = self.picture(attributes, nuisance).draw()
        return images

    def render_parallel(self, factors: Factors) -> NDArray[np.uint8]:
        """The pictures of `render`, by one process per core; few pictures need no process."""
        starts = range(0, len(factors), PICTURES_OF_A_TASK)
        if len(starts) < 2:
            return self.render(factors)
        parts = (factors[start : start + PICTURES_OF_A_TASK] for start in starts)
        return np.concatenate(Parallel(n_jobs=-1)(delayed(self.render)(part) for part in parts))


# A data set of rendered pictures: splits, labels and true counterfactuals of one drawing.

_FLIPPED_KEPT = 1000
"""Flipped pictures that are kept, 12 kB each; a call may draw more."""

SEED = 0
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, H, W, 3] in [0, 255] → float32 [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class RenderedDataset:
    """Pictures drawn on request: `<split>-<number>` is an image's id, and all it depends on.

    Concepts of attributes that are `not_carried` by the domain's h are not among the card's.
    """

    def __init__(self, drawing: Drawing, not_carried: Sequence[str] = ()) -> None:
        self._drawing = drawing
        self._flipped: dict[tuple[str, str], NDArray[np.uint8]] = {}
        self.card = DatasetCard(
            name=drawing.name,
            domain_kind="synth",
            revision=drawing.revision[:12],
            resolution=IMAGE_SIZE,
            attributes=drawing.attributes,
            concepts=tuple(c for c in drawing.concepts if c.attribute not in not_carried),
            not_carried=tuple(c.attribute for c in drawing.concepts if c.attribute in not_carried),
            description=f"Drawn {drawing.subject} of {IMAGE_SIZE}×{IMAGE_SIZE} pixels with "
            f"{len(drawing.attributes)} independent binary attributes over continuous nuisance "
            "factors; any attribute can be flipped, all else equal.",
            licence="Apache-2.0",
            source=drawing.source,
        )

    def load(self, split: Split, count: int) -> ImageBatch:
        """The first `count` images of a split: always the same ones, in the same order.

        Raises InputError where there is no such split, or the count is negative.
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

        Raises UsageError for another attribute, InputError for an id of another data set.
        """
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
        nothing = self._drawing.sample([], SEED)
        return Factors.concatenated([nothing, *map(self._one, image_ids)])

    def _one(self, image_id: str) -> Factors:
        split, _, number = image_id.rpartition("-")
        if split not in _SPLITS or not number.isdecimal():
            raise InputError(
                f"'{image_id}' is no image of {self.card.name}", hint="ids look like test-000012"
            )
        stream = derive_seed(SEED, self.card.name, split)
        return self._drawing.sample(np.array([int(number)]), stream)
