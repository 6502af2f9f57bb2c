"""What a data set is: images with ids, splits, concepts and, where they are known, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from casl_bench.core.registry import Registry

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Concept:
    """One thing to edit: its name (lower_snake), the words before and after, and its attribute.

    The edit should turn the attribute on, a column of the labels and a logit of the classifiers; a
    negative strength turns it off.
    """

    name: str
    source_prompt: str
    target_prompt: str
    attribute: str


@dataclass(frozen=True)
class DatasetCard:
    """What a table says of a data set. `revision` changes whenever a pixel or a label may.

    Attributes:
        concepts: what is edited and ranked.
        not_carried: attributes that would be among them, but that h does not carry.
    """

    name: str
    domain_kind: str
    revision: str
    resolution: int
    attributes: tuple[str, ...]
    concepts: tuple[Concept, ...]
    description: str
    licence: str
    source: str
    not_carried: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageBatch:
    """Images of one split, with ids that are unique within the data set.

    The pixels are [n, 3, H, W] float32 in [-1, 1]; attributes are [n, A] bool in the card's order,
    or None where they are unknown.
    """

    image_ids: tuple[str, ...]
    pixels: Tensor
    attributes: Tensor | None

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, index: Sequence[int]) -> ImageBatch:
        """The images at these places, in this order."""
        i = list(index)
        labels = None if self.attributes is None else self.attributes[i]
        return ImageBatch(tuple(self.image_ids[k] for k in i), self.pixels[i], labels)


@runtime_checkable
class Dataset(Protocol):
    """A named source of images."""

    card: DatasetCard

    def load(self, split: Split, count: int) -> ImageBatch:
        """The first `count` images of a split: always the same ones, in the same order."""
        ...


@runtime_checkable
class SupportsOracle(Protocol):
    """A data set whose factors are known, so that the perfect edit is too."""

    def oracle(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """The same images with this one factor flipped: [n, 3, H, W] float32 in [-1, 1]."""
        ...


@runtime_checkable
class CountsImages(Protocol):
    """A data set that ends: a run asks beforehand whether it has enough."""

    def count(self, split: Split) -> int:
        """How many images a split has."""
        ...


DATASETS: Registry[Dataset] = Registry("dataset", entry_point_group="casl_bench.datasets")
