"""The `celeba` data set: 202,599 aligned portraits of 178×218 pixels with 40 attributes.

The folder holds `list_attr_celeba.txt` (or `.csv`) and `img_align_celeba/` (or
`img_align_celeba_png/`), beside each other or in the release's `Anno/` and `Img/`. The first of
these says which image is in which split:

- `splits.txt`: ranges of image numbers, `train 1-5000` a line;
- `list_eval_partition.txt` (or `.csv`), also in `Eval/`: the official partition;
- neither: the official partition's ranges, train up to 162,770, validation up to 182,637.

Any part of the images will do. A square of 160 of the 178 pixels around the face is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_file
from casl_bench.domains.dataset import DATASETS, Split
from casl_bench.photos.celeba_annotation import (
    CELEBA_ATTRIBUTES,
    annotated_layout,
    number_of,
    read_annotation,
    read_partition,
    read_ranges,
)
from casl_bench.photos.layouts import Layout, no_layout
from casl_bench.photos.photo_dataset import PhotoDataset, PhotoKind, shipped_concepts

IMAGES, ANNOTATION, PARTITION = "img_align_celeba", "list_attr_celeba", "list_eval_partition"
RANGES = "splits.txt"
OFFICIAL: tuple[tuple[Split, range], ...] = (
    ("train", range(1, 162_771)),
    ("validation", range(162_771, 182_638)),
    ("test", range(182_638, 202_600)),
)
"""The official partition is in the order of the images."""


def find_layout(root: Path) -> Layout:
    """What a folder holds.

    Raises UsageError where a part is missing, and InvalidBenchmarkError where annotation or
    partition are faulty.
    """
    base = next((b for b in (root, root / "CelebA", root / "celeba") if _annotation(b)), None)
    if base is None or (path := _annotation(base)) is None:
        raise no_layout("celeba", root, f"{IMAGES}/ beside {ANNOTATION}.txt")
    images = next((folder for folder in _image_folders(base) if folder.is_dir()), None)
    if images is None:
        packed = next((p for b in (base, base / "Img") if (p := b / f"{IMAGES}.zip").is_file()), "")
        what, where = ("images are still packed", packed) if packed else ("no images", base)
        raise UsageError(what, where=str(where), hint=f"unpack them to {IMAGES}/")
    annotation = read_annotation(path)
    splits: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
    split_of, source = _split_of(base)
    for name in annotation.names:
        if (split := split_of(name)) is not None:
            splits[split].append(name)
    return annotated_layout(
        "CelebA",
        images,
        annotation,
        splits,
        more=[hash_file(source)] if source else [],
        chosen=source is not None and source.name == RANGES,
    )


def _annotation(base: Path) -> Path | None:
    return _found(base, "Anno", ANNOTATION)


def _found(base: Path, release: str, name: str) -> Path | None:
    places = (f / f"{name}{end}" for f in (base, base / release) for end in (".txt", ".csv"))
    return next((path for path in places if path.is_file()), None)


def _image_folders(base: Path) -> Iterator[Path]:
    for folder in (base, base / "Img"):
        for name in (IMAGES, f"{IMAGES}_png"):
            yield folder / name / name  # as some archives unpack
            yield folder / name


def _split_of(base: Path) -> tuple[Callable[[str], Split | None], Path | None]:
    """The split of an image by its name, None for none, and the file that says so."""
    ranges, partition = base / RANGES, _found(base, "Eval", PARTITION)
    if ranges.is_file():
        return _by_number(read_ranges(ranges)), ranges
    if partition is not None:
        return read_partition(partition).get, partition
    return _by_number(OFFICIAL), None


def _by_number(ranges: Sequence[tuple[Split, range]]) -> Callable[[str], Split | None]:
    def split_of(name: str) -> Split | None:
        number = number_of(name)
        if not number.isdecimal():
            return None
        return next((split for split, range_ in ranges if int(number) in range_), None)

    return split_of


Celeba = partial(
    PhotoDataset,
    PhotoKind(
        name="celeba",
        attributes=tuple(CELEBA_ATTRIBUTES),
        published=CELEBA_ATTRIBUTES,
        concepts=shipped_concepts("celeba_hq", tuple(CELEBA_ATTRIBUTES)),
        description="CelebA: 202,599 aligned portraits of celebrities with 40 annotated "
        "attributes.",
        licence="non-commercial research",
        source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        find_layout=find_layout,
        # Left, top, right and bottom of 178×218 pixels: 8, 40, 168, 200.
        box=(8 / 178, 40 / 218, 168 / 178, 200 / 218),
    ),
)
"""Small portraits with 40 attributes: takes a source and a resolution."""

DATASETS.register("celeba", Celeba)
