"""The `celeba_hq` data set: 30,000 portraits with the 40 attributes of CelebA.

Layouts of the folder, the first that fits (each also below `CelebAMask-HQ/` or `celeba_hq/`):

- CelebAMask-HQ's: `CelebA-HQ-img/*.jpg` beside `CelebAMask-HQ-attribute-anno.txt`. The images are
  in the annotation's order: 0…23,999 train, 24,000…26,999 validation, 27,000…29,999 test (eight,
  one and one tenth of any other number). CelebA's official partition is not used: it goes by other
  numbers, and the file that maps them is not part of this release.
- StarGAN v2's: `train/{female,male}`, `val/{female,male}`. `val` tests, the last tenth of `train`
  validates.
- Flat: images right in the folder, cut in three: eight, one and one tenth.

Without the annotation the attributes are unknown. Then images are in the order of
the hash of their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_bytes, read_whole
from casl_bench.domains.dataset import DATASETS
from casl_bench.photos.layouts import (
    Layout,
    cut_in_three,
    file_layout,
    first_layout,
    layout_of_folders,
    list_images,
    no_layout,
)
from casl_bench.photos.photo_dataset import PhotoDataset, PhotoKind, shipped_concepts

PUBLISHED_NAMES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns",
    "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

# Our name → (published name, sign). An edit turns an attribute on, so that the one published as an
# absence is inverted: the sign is -1 where "published" means "ours is off".
CELEBA_ATTRIBUTES: dict[str, tuple[str, int]] = {
    ("beard" if name == "No_Beard" else name.lower()): (name, -1 if name == "No_Beard" else 1)
    for name in PUBLISHED_NAMES
}

_ROW = re.compile(r"([^\s./\\][^\s/\\]*)  ((?:-?1 ){39}-?1)")
_HINT = "download the annotation again"


@dataclass(frozen=True)
class Annotation:
    """The labels of all images."""

    names: tuple[str, ...]  # n file names in the file's order
    labels: Tensor  # [n, 40] bool, columns as in `CELEBA_ATTRIBUTES`
    content_hash: str  # SHA-256 of the file

    def of(self, names: Sequence[str]) -> Tensor:
        """The labels of these images, in this order: [len(names), 40] bool."""
        place = {name: i for i, name in enumerate(self.names)}
        return self.labels[[place[name] for name in names]]


def read_annotation(path: Path) -> Annotation:
    """Read CelebAMask-HQ-attribute-anno.txt.

    It is a line with the number of images, a line with the 40 names, then one line an image: file
    name, two blanks, 40 times 1 or -1. Raises UsageError where the file is absent, and
    InvalidBenchmarkError, naming the line, where it differs from that in any way.
    """
    try:
        data = read_whole(path)
    except OSError as error:
        reason = "no annotation" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UsageError(
            reason, where=str(path), hint="download CelebAMask-HQ-attribute-anno.txt"
        ) from error
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _fault(path, data[: error.start].count(b"\n") + 1, "not a text file") from error
    announced, header, *rows = [*lines, "", ""] if len(lines) < 2 else lines
    if not re.fullmatch(r"\s*0*[1-9][0-9]{,8}\s*", announced):
        raise _fault(path, 1, f"'{announced[:40]}' is no number of images")
    if tuple(header.split()) != PUBLISHED_NAMES:
        raise _fault(path, 2, "not the 40 published names of attributes in their order")
    count, names, values = int(announced), list[str](), bytearray()
    seen: dict[str, int] = {}
    for number, line in enumerate(rows, start=3):
        match = _ROW.fullmatch(line)
        if match is None:
            wanted = "file name, two blanks, 40 times 1 or -1 one blank apart"
            raise _fault(path, number, f"the line is not: {wanted}")
        if (before := seen.setdefault(match[1], number)) != number:
            raise _fault(path, number, f"'{match[1]}' is on line {before}, too")
        names.append(match[1])
        values += bytes(value == "1" for value in match[2].split(" "))
    if len(names) != count:
        raise _fault(path, 1, f"{count} images are announced, {len(names)} follow")
    signs = torch.tensor([sign for _, sign in CELEBA_ATTRIBUTES.values()])
    table = torch.frombuffer(values, dtype=torch.uint8).reshape(count, -1).bool()
    return Annotation(tuple(names), table ^ (signs < 0), hash_bytes(data))


def _fault(path: Path, line: int, what: str) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(what, where=f"{path}, line {line}", hint=_HINT)


IMAGES, ANNOTATION = "CelebA-HQ-img", "CelebAMask-HQ-attribute-anno.txt"
GENDERS = ("female", "male")


def find_layout(root: Path) -> Layout:
    """What a folder holds.

    Raises UsageError where it is none of the layouts or a part of one is missing, and
    InvalidBenchmarkError where the annotation is faulty.
    """
    if layout := first_layout(root, ("CelebAMask-HQ", "celeba_hq"), _published):
        return layout
    raise no_layout("celeba_hq", root, f"{IMAGES}/ beside {ANNOTATION}, train/female/ …, or images")


def _published(base: Path) -> Layout | None:
    if (base / IMAGES).is_dir() or (base / ANNOTATION).is_file():
        return _annotated(base)
    if any((base / "train" / gender).is_dir() for gender in GENDERS):
        train, test = ([f"{part}/{gender}" for gender in GENDERS] for part in ("train", "val"))
        return layout_of_folders("StarGAN v2", base, train, test)
    return None


def _number(name: str) -> str:
    return Path(name).stem.lower().lstrip("0")


def _annotated(base: Path) -> Layout:
    annotation = read_annotation(base / ANNOTATION)
    if not (base / IMAGES).is_dir():
        raise UsageError("no folder of images", where=str(base / IMAGES))
    sizes = list_images(base / IMAGES, deep=False)
    if not sizes:
        deeper = next(iter(list_images(base / IMAGES)), None)
        below = base / IMAGES / Path(deeper or "").parent
        hint = f"move them up from {below}" if deeper else "put the images there"
        raise UsageError("the folder holds no image", where=str(base / IMAGES), hint=hint)
    known = set(annotation.names)
    if unlabelled := [name for name in sizes if name not in known]:
        first, images = unlabelled[0], "images are" if len(unlabelled) > 1 else "image is"
        # The same picture with another ending, or with zeros before its number.
        of = {_number(name): name for name in annotation.names}
        named = of.get(_number(first))
        named = None if named in sizes else named
        raise UsageError(
            f"{len(unlabelled):,} {images} not in the annotation",
            where=str(base / IMAGES / first),
            hint=f"rename: there it is {named}; any format will do" if named else "move it away",
        )
    # One that the annotation names and the folder lacks is a bad image when its turn comes.
    layout = file_layout(
        "CelebAMask-HQ", base / IMAGES, cut_in_three(annotation.names), sizes, annotation.of
    )
    return Layout(
        layout.name, layout.splits, [layout.contents, annotation.content_hash], layout.labels
    )


CelebaHq = partial(
    PhotoDataset,
    PhotoKind(
        name="celeba_hq",
        attributes=tuple(CELEBA_ATTRIBUTES),
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
