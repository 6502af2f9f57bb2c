"""The `celeba_hq` data set: 30,000 portraits with the 40 attributes of CelebA.

Layouts of the folder, the first that fits (each also below `CelebAMask-HQ/` or `celeba_hq/`):

- CelebAMask-HQ's: `CelebAMask-HQ-attribute-anno.txt`, with the images beside it or in
  `CelebA-HQ-img/`, `celeba_hq_256/` or `data256x256/`. They are in the annotation's order:
  0…23,999 train, 24,000…26,999 validation, 27,000…29,999 test (eight, one and one tenth of any
  other number). CelebA's official partition is not used: it goes by other numbers, and the file
  that maps them is not part of this release.
- StarGAN v2's: `train/{female,male}`, `val/{female,male}`. `val` tests, the last tenth of `train`
  validates.
- Flat: images right in the folder or in `celeba_hq_256/`, cut in three: eight, one and one tenth.

Without the annotation the attributes are unknown. Then images are in the order of
the hash of their names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import DATASETS
from casl_bench.photos.celeba_annotation import (
    CELEBA_ATTRIBUTES,
    annotated_layout,
    read_annotation,
)
from casl_bench.photos.layouts import (
    Layout,
    cut_in_three,
    first_layout,
    layout_of_folders,
    list_images,
    no_layout,
)
from casl_bench.photos.photo_dataset import PhotoDataset, PhotoKind, shipped_concepts

IMAGES = ("CelebA-HQ-img", "celeba_hq_256", "data256x256")
"""Folders of images; they may also lie right beside the annotation."""
ANNOTATION = "CelebAMask-HQ-attribute-anno.txt"
GENDERS = ("female", "male")


def find_layout(root: Path) -> Layout:
    """What a folder holds.

    Raises UsageError where it is none of the layouts or a part of one is missing, and
    InvalidBenchmarkError where the annotation is faulty.
    """
    inner = ("CelebAMask-HQ", "celeba_hq", *IMAGES[1:])
    if layout := first_layout(root, inner, _published):
        return layout
    raise no_layout(
        "celeba_hq", root, f"{IMAGES[0]}/ beside {ANNOTATION}, train/female/ …, or images"
    )


def _published(base: Path) -> Layout | None:
    if (base / IMAGES[0]).is_dir() or (base / ANNOTATION).is_file():
        return _annotated(base)
    if any((base / "train" / gender).is_dir() for gender in GENDERS):
        train, test = ([f"{part}/{gender}" for gender in GENDERS] for part in ("train", "val"))
        return layout_of_folders("StarGAN v2", base, train, test)
    return None


def _annotated(base: Path) -> Layout:
    annotation = read_annotation(base / ANNOTATION)
    images = next((base / name for name in IMAGES if (base / name).is_dir()), base)
    if images is base and not list_images(base, deep=False):
        raise UsageError("no folder of images", where=str(base / IMAGES[0]))
    return annotated_layout("CelebAMask-HQ", images, annotation, cut_in_three(annotation.names))


CelebaHq = partial(
    PhotoDataset,
    PhotoKind(
        name="celeba_hq",
        attributes=tuple(CELEBA_ATTRIBUTES),
        published=CELEBA_ATTRIBUTES,
        concepts=shipped_concepts("celeba_hq", tuple(CELEBA_ATTRIBUTES)),
        description="CelebA-HQ: 30,000 aligned portraits of celebrities with 40 annotated "
        "attributes.",
        licence="non-commercial research and education (CelebAMask-HQ's terms)",
        source="https://github.com/switchablenorms/CelebAMask-HQ",
        find_layout=find_layout,
    ),
)
"""Portraits, with 40 attributes where the annotation is there: takes a source and a resolution."""

DATASETS.register("celeba_hq", CelebaHq)
