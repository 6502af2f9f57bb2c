"""The `celeba_hq` data set: 30,000 portraits with the 40 attributes of CelebA.

Layouts of the folder, the first that fits (each also below `CelebAMask-HQ/` or `celeba_hq/`):

- CelebAMask-HQ's: `CelebA-HQ-img/*.jpg` beside `CelebAMask-HQ-attribute-anno.txt`. The images are
  in the annotation's order: 0…23,999 train, 24,000…26,999 validation, 27,000…29,999 test (eight,
  one and one tenth of any other number). CelebA's official partition is not used: it goes by other
  numbers, and the file that maps them is not part of this release.
- StarGAN v2's: `train/{female,male}`, `val/{female,male}`. `val` tests, the last tenth of `train`
  validates.
- Flat: images right in the folder, cut in three: eight, one and one tenth.

Without the annotation nobody knows the attributes. Where there is none, images are in the order of
the hash of their names.
"""

from __future__ import annotations

from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.images.celeba_annotation import (
    CELEBA_ATTRIBUTES as CELEBA_ATTRIBUTES,  # where a reader would look for it
)
from casl_bench.images.celeba_annotation import read_annotation
from casl_bench.images.concept_file import shipped_concepts
from casl_bench.images.data_source import DataSource
from casl_bench.images.dataset import DATASETS
from casl_bench.images.photo_dataset import PhotoDataset, PhotoKind
from casl_bench.images.photo_folder import (
    file_layout,
    flat_layout,
    folders_of,
    list_images,
    no_layout,
    required_images,
)
from casl_bench.images.photo_layout import Layout, cut_in_three, cut_off_validation, shuffled

IMAGES, ANNOTATION = "CelebA-HQ-img", "CelebAMask-HQ-attribute-anno.txt"
GENDERS = ("female", "male")


def find_layout(root: Path) -> Layout:
    """What a folder holds.

    Raises:
        UsageError: none of the layouts, or a part of one is missing.
        InvalidBenchmarkError: the annotation is faulty.
    """
    bases = folders_of(root, "CelebAMask-HQ", "celeba_hq")
    for base in bases:
        if (base / IMAGES).is_dir() or (base / ANNOTATION).is_file():
            return _annotated(base)
        if any((base / "train" / gender).is_dir() for gender in GENDERS):
            return _by_gender(base)
    if layout := flat_layout(bases):
        return layout
    raise no_layout("celeba_hq", root, f"{IMAGES}/ beside {ANNOTATION}, train/female/ …, or images")


def _annotated(base: Path) -> Layout:
    annotation = read_annotation(base / ANNOTATION)
    if not (base / IMAGES).is_dir():
        raise UsageError("no folder of images", where=str(base / IMAGES))
    sizes = list_images(base / IMAGES, deep=False)
    known = set(annotation.names)
    if unlabelled := [name for name in sizes if name not in known]:
        raise UsageError(
            f"{len(unlabelled):,} images are not in the annotation",
            where=str(base / IMAGES / unlabelled[0]),
            mend="move them away",
        )
    if not sizes:
        raise UsageError("the folder holds no image", where=str(base / IMAGES))
    # One that the annotation names and the folder lacks is a bad image when its turn comes.
    layout = file_layout(
        "CelebAMask-HQ", base / IMAGES, cut_in_three(annotation.names), sizes, annotation.of
    )
    return Layout(
        layout.name, layout.splits, [layout.contents, annotation.content_hash], layout.labels
    )


def _by_gender(base: Path) -> Layout:
    train, test = (
        {name: size for g in GENDERS for name, size in required_images(base, f"{part}/{g}").items()}
        for part in ("train", "val")
    )
    splits = cut_off_validation(shuffled(list(train)), shuffled(list(test)))
    return file_layout("StarGAN v2", base, splits, train | test)


KIND = PhotoKind(
    name="celeba_hq",
    attributes=tuple(CELEBA_ATTRIBUTES),
    concepts=shipped_concepts("celeba_hq", tuple(CELEBA_ATTRIBUTES)).concepts,
    description="CelebA-HQ: 30,000 aligned portraits of celebrities with 40 annotated attributes.",
    licence="non-commercial research and education (CelebAMask-HQ's terms)",
    source="https://github.com/switchablenorms/CelebAMask-HQ",
    find_layout=find_layout,
)


class CelebaHq(PhotoDataset):
    """Portraits, with 40 attributes where the annotation is there.

    Args:
        source: where the files are; None only for the card.
        resolution: side of the images in pixels.
    """

    def __init__(self, source: DataSource | None = None, resolution: int = 256) -> None:
        super().__init__(KIND, source, resolution)


DATASETS.register("celeba_hq", CelebaHq)
