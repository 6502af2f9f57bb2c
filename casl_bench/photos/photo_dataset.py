"""Photographs as a data set: found at once, read when asked for, bad files refused or counted."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from casl_bench.core.errors import InputError, UsageError, first_fault, unknown_name
from casl_bench.core.files import hash_json, read_whole
from casl_bench.domains.dataset import Concept, DatasetCard, ImageBatch, Split
from casl_bench.domains.options import DataSource
from casl_bench.photos.layouts import Layout
from casl_bench.photos.photo_file import MIN_SIDE, PREPROCESSING, BadPhotoError, Box, decode_photo
from casl_bench.photos.photo_hub import PublishedNames, hub_layout

_CONCEPTS = Path(__file__).with_name("concepts")
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class BadImage:
    """An image that was left out: where it is and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class PhotoKind:
    """What sets one data set of photographs apart from another."""

    name: str  # as on the command line
    concepts: tuple[Concept, ...]  # of the card
    description: str  # of the card
    licence: str  # of the card
    source: str  # of the card
    # The published layout that a folder holds; raises BenchError where it is none
    find_layout: Callable[[Path], Layout]
    attributes: tuple[str, ...] = ()  # of the card; empty where the concepts are all there are
    hub_class: str | None = None  # the class wanted of a `datasets` data set that mixes several
    # Our attribute → its published name and sign: columns of a `datasets` data set
    published: PublishedNames | None = None
    # Left, top, right and bottom of the part that is seen, in shares; None: the middle square
    box: Box | None = None


class PhotoDataset:
    """A `Dataset` over files that the user has.

    Its card can be had without them. Listing them is quick and happens when the data set is made;
    an image is read when it is loaded. `resolution` is the images' side in pixels.

    Raises InputError where the resolution is too small, UsageError where there is no such folder or
    it holds no layout of this data set, and InvalidBenchmarkError where what labels or holds the
    images is damaged.
    """

    def __init__(
        self, kind: PhotoKind, source: DataSource | None = None, resolution: int = 256
    ) -> None:
        if resolution < MIN_SIDE:
            raise InputError(f"a resolution of {resolution} pixels", hint=f"{MIN_SIDE} at least")
        self._layout = _found(kind, source)
        self._skip = source is not None and source.on_bad_image == "skip"
        self._bad: dict[str, BadImage] = {}
        self._box = kind.box
        self.card = DatasetCard(
            name=kind.name,
            domain_kind="real",
            revision=_revision(self._layout, resolution, kind.box),
            resolution=resolution,
            attributes=kind.attributes or tuple(c.attribute for c in kind.concepts),
            concepts=kind.concepts,
            description=kind.description,
            licence=kind.licence,
            source=kind.source,
        )

    @property
    def layout(self) -> str:
        """The layout that was found, for people; empty without files."""
        return "" if self._layout is None else self._layout.name

    @property
    def labelled(self) -> bool:
        """Whether the attributes of its images are known."""
        return self._layout is not None and self._layout.labels is not None

    @property
    def bad_images(self) -> tuple[BadImage, ...]:
        """What was left out so far, sorted by path; always empty where a bad file stops."""
        return tuple(sorted(self._bad.values(), key=lambda bad: bad.path))

    def count(self, split: Split) -> int:
        """How many images a split has, usable or not; 0 without files."""
        return 0 if self._layout is None else len(self._layout.splits[split])

    def load(self, split: Split, count: int) -> ImageBatch:
        """The first `count` good images of a split: always the same ones, in the same order.

        Raises UsageError where there is no such split or it was not said where the files are,
        InputError where there are fewer images, and InvalidBenchmarkError where a file is no usable
        image and may not be left out.
        """
        if split not in _SPLITS:
            raise unknown_name("split", split, _SPLITS)
        if count < 0:
            raise InputError(f"a count of {count} images")
        if self._layout is None:
            raise UsageError(
                f"no files of {self.card.name}",
                hint="say where they are with --data-root or CASL_BENCH_DATA "
                "(docs/real_data_sets.md)",
            )
        photos = self._layout.splits[split]
        if count > len(photos):
            raise InputError(f"{self.card.name} has {len(photos):,} {split} images, not {count:,}")
        side = self.card.resolution
        ids: list[str] = []
        pixels = torch.empty(count, 3, side, side)
        left_out = 0
        with closing(photos.walk()) as walk:
            while len(ids) < count and (photo := next(walk, None)) is not None:
                if photo.image_id in self._bad:
                    left_out += 1
                    continue
                try:
                    pixels[len(ids)] = decode_photo(photo.read(), photo.where, side, self._box)
                except BadPhotoError as error:
                    if not self._skip:
                        raise
                    left_out += 1
                    self._bad[photo.image_id] = BadImage(photo.where, error.what)
                else:
                    ids.append(photo.image_id)
        if len(ids) < count:
            raise InputError(
                f"{self.card.name} has {len(ids):,} usable {split} images, not {count:,}",
                where=f"{left_out:,} left out",
            )
        labels = None if self._layout.labels is None else self._layout.labels(ids)
        return ImageBatch(tuple(ids), pixels, labels)


def _found(kind: PhotoKind, source: DataSource | None) -> Layout | None:
    if source is None or (source.root is None and source.hub_id is None):
        return None
    if source.hub_id is not None:  # instead of a folder: an environment may name one always
        return hub_layout(source.hub_id, kind.hub_class, kind.published, source.allow_download)
    assert source.root is not None
    if not source.root.is_dir():
        what = "not a folder" if source.root.exists() else "no such folder"
        raise UsageError(what, where=str(source.root), hint=f"--data-root holds {kind.name}")
    return kind.find_layout(source.root)


def _revision(layout: Layout | None, resolution: int, box: Box | None) -> str:
    if layout is None:
        return "absent"
    seen = [box] if box else []
    return hash_json([PREPROCESSING, resolution, layout.contents, *seen])[:12]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    source: str = Field(min_length=1)
    target: str = Field(min_length=1)
    attribute: str = Field(min_length=1)


class _ConceptFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    concept: list[_Row] = Field(min_length=1)


def shipped_concepts(dataset: str, attributes: Sequence[str] | None = None) -> tuple[Concept, ...]:
    """The concepts that come with the package for a data set. See `read_concepts`."""
    return read_concepts(_CONCEPTS / f"{dataset}.toml", attributes)


def read_concepts(path: Path, attributes: Sequence[str] | None = None) -> tuple[Concept, ...]:
    """Read a TOML file of `[[concept]]` tables: name, source, target, attribute.

    Without the data set's attributes a concept's own name must be its attribute. Raises UsageError
    where the file is absent, no TOML, or any field of it is unknown, missing or wrong.
    """
    try:
        rows = _ConceptFile.model_validate(tomllib.loads(read_whole(path).decode())).concept
    except OSError as error:
        reason = "no concept file" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UsageError(reason, where=str(path)) from error
    except ValidationError as error:
        raise UsageError(f"not a concept file: {first_fault(error)}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path)) from error
    seen: set[str] = set()
    for row in rows:
        where = f"{path}, concept '{row.name}'"
        if row.name in seen:
            raise UsageError(f"concept '{row.name}' is there twice", where=where)
        seen.add(row.name)
        if row.source.split() == row.target.split():
            raise UsageError("source and target are the same text", where=where)
        if attributes is not None and row.attribute not in attributes:
            unknown = unknown_name("attribute", row.attribute, attributes)
            raise UsageError(unknown.what, where=where, hint=unknown.hint)
        if attributes is None and row.attribute != row.name:
            raise UsageError(
                f"attribute '{row.attribute}' is not the concept's own name",
                where=where,
                hint="images without labels are scored by the concept itself",
            )
    return tuple(Concept(row.name, row.source, row.target, row.attribute) for row in rows)
