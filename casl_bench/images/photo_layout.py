"""What a data set's folder, database or table holds: the images of each split, none decoded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from casl_bench.core.content_hash import hash_bytes
from casl_bench.images.dataset import Split

T = TypeVar("T")


@dataclass(frozen=True)
class Photo:
    """An image that is not yet read.

    Attributes:
        image_id: unique within the data set, the same on every machine.
        where: its path, or its database and key, for messages.
        read: its encoded bytes, while the split is being walked; raises BadPhotoError.
    """

    image_id: str
    where: str
    read: Callable[[], bytes]


class Photos(Protocol):
    """The images of one split in their fixed order."""

    def __len__(self) -> int:
        """How many there are, found without reading any."""
        ...

    def walk(self) -> Generator[Photo, None, None]:
        """Each in turn. Close the generator when done: it may hold a database open."""
        ...


@dataclass(frozen=True)
class Layout:
    """A data set as it was found.

    Attributes:
        name: the layout, for people.
        splits: the images of each split; no image is in two.
        contents: JSON that changes when a file is added, taken away or changes its size.
        labels: ids → [n, A] bool in the card's order, or None where the layout has none.
    """

    name: str
    splits: Mapping[Split, Photos]
    contents: Any
    labels: Callable[[Sequence[str]], Tensor] | None = None


def shuffled(names: Sequence[str]) -> list[str]:
    """Names in an order of their own: by SHA-256, whatever order they come in.

    Sorted names come by source or class (all women before all men): of a hashed order the first n
    are a fair sample.
    """
    return sorted(names, key=lambda name: (hash_bytes(name.encode()), name))


def cut_in_three(items: Sequence[T]) -> dict[Split, Sequence[T]]:
    """The first eight tenths train, then one tenth validates and one tests."""
    first, second = len(items) * 8 // 10, len(items) * 9 // 10
    return {"train": items[:first], "validation": items[first:second], "test": items[second:]}


def cut_off_validation(train: Sequence[T], test: Sequence[T]) -> dict[Split, Sequence[T]]:
    """Published training and test images: the last tenth of the former validates."""
    end = last_tenth(len(train))
    return {"train": train[:end], "validation": train[end:], "test": test}


def last_tenth(count: int) -> int:
    """Where the last tenth of so many begins."""
    return count * 9 // 10
