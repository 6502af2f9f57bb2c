"""The 40 attributes of CelebA: their names, the files that hold them, and the images they are of.

CelebA and CelebA-HQ publish the same table under different file names and image numbers. Both are
read here, as they are published and as labs keep them: with or without the line that counts the
images, a byte order mark, one blank or two between the columns, blanks at the end of a line, or as
comma-separated values. Images are found by their number, whatever their ending and leading zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_bytes, read_whole
from casl_bench.domains.dataset import Split
from casl_bench.photos.layouts import Layout, Sizes, cut_in_three, file_layout, list_images

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

_NAME = re.compile(r"[^\s./\\,][^\s/\\,]*")
_RANGE = re.compile(r"(train|validation|test)\s+(\d{1,9})\s*-\s*(\d{1,9})")
_HINT = "download the annotation again"
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


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
    """Read the table of the 40 attributes.

    A line with the number of images (which may be absent), a line with the 40 names, then one line
    per image: file name and 40 times 1 or -1. Raises UsageError where the file is absent, and
    InvalidBenchmarkError, naming the line, where it is anything else.
    """
    lines, data = _lines(path)
    count, first = None, 0
    if lines and re.fullmatch(r"-?\d+", lines[0]):
        count, first = lines[0], 1
        if not re.fullmatch(r"0*[1-9][0-9]{,8}", count):
            raise _fault(path, 1, f"'{count[:40]}' is no number of images")
    header = _cells(lines[first]) if len(lines) > first else []
    if tuple(header) != PUBLISHED_NAMES and tuple(header[1:]) != PUBLISHED_NAMES:
        raise _fault(path, first + 1, "not the 40 published names of attributes in their order")
    commas = "," in lines[first]
    names, values = list[str](), bytearray()
    seen: dict[str, int] = {}
    for number, line in islice(enumerate(lines, start=1), first + 1, None):
        name, *row = _cells(line) or [""]
        fits = len(row) == 40 and {"1", "-1"}.issuperset(row) and commas == ("," in line)
        if not fits or not _NAME.fullmatch(name):
            raise _fault(path, number, "the line is not: file name, 40 times 1 or -1")
        if (before := seen.setdefault(name, number)) != number:
            raise _fault(path, number, f"'{name}' is on line {before}, too")
        names.append(name)
        values += bytes(value == "1" for value in row)
    if not names:
        raise _fault(path, len(lines), "no image follows")
    if count is not None and len(names) != int(count):
        raise _fault(path, 1, f"{int(count)} images are announced, {len(names)} follow")
    signs = torch.tensor([sign for _, sign in CELEBA_ATTRIBUTES.values()])
    table = torch.frombuffer(values, dtype=torch.uint8).reshape(len(names), -1).bool()
    return Annotation(tuple(names), table ^ (signs < 0), hash_bytes(data))


def _lines(path: Path) -> tuple[list[str], bytes]:
    """The lines of a text file without blanks at their ends or empty lines at its own; its bytes.

    An empty line in the middle stays, and is a fault of what it interrupts.
    """
    try:
        data = read_whole(path)
    except OSError as error:
        reason = "no annotation" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UsageError(reason, where=str(path), hint=f"download {path.name}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault(path, data[: error.start].count(b"\n") + 1, "not a text file") from error
    return [line.strip() for line in text.rstrip().splitlines()], data


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")] if "," in line else line.split()


def _fault(path: Path, line: int, what: str) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(what, where=f"{path}, line {max(line, 1)}", hint=_HINT)


def read_partition(path: Path) -> dict[str, Split]:
    """Read CelebA's list_eval_partition: file name and 0 (train), 1 (validation) or 2 (test).

    Raises UsageError where the file is absent, InvalidBenchmarkError, naming the line, otherwise.
    """
    found: dict[str, Split] = {}
    for number, line in enumerate(_lines(path)[0], start=1):
        cells = _cells(line)
        if number == 1 and cells[:1] == ["image_id"]:
            continue
        if len(cells) != 2 or cells[1] not in ("0", "1", "2") or not _NAME.fullmatch(cells[0]):
            raise _fault(path, number, "the line is not: file name, 0, 1 or 2")
        if cells[0] in found:
            raise _fault(path, number, f"'{cells[0]}' is there twice")
        found[cells[0]] = _SPLITS[int(cells[1])]
    return found


def read_ranges(path: Path) -> list[tuple[Split, range]]:
    """Read splits that are given as ranges of image numbers, `train 1-5000` a line, both ends in.

    Raises UsageError where the file is absent or a line is none of these, two ranges overlap, or a
    split has none.
    """
    found: list[tuple[Split, range]] = []
    for number, line in enumerate(_lines(path)[0], start=1):
        match, where = _RANGE.fullmatch(line), f"{path}, line {number}"
        if match is None or int(match[2]) > int(match[3]):
            raise UsageError(
                "the line is no range of images",
                where=where,
                hint="write train, validation or test and a range such as 1-5000",
            )
        split = next(s for s in _SPLITS if s == match[1])
        own = range(int(match[2]), int(match[3]) + 1)
        for other, range_ in found:
            if range_.start < own.stop and own.start < range_.stop:
                what = f"the range overlaps that of {other}, {range_.start}-{range_.stop - 1}"
                raise UsageError(what, where=where, hint="an image belongs to one split")
        found.append((split, own))
    if missing := [s for s in _SPLITS if s not in {split for split, _ in found}]:
        raise UsageError(f"no range of {', '.join(missing)}", where=str(path))
    return found


def number_of(name: str) -> str:
    """What tells an image from others whatever its ending and its leading zeros."""
    return Path(name).stem.lower().lstrip("0") or "0"


def annotated_layout(
    name: str,
    images: Path,
    annotation: Annotation,
    published: Mapping[Split, Iterable[str]],
    more: Sequence[str] = (),
    chosen: bool = False,
) -> Layout:
    """The labelled images of a folder, found by their numbers: any ending, with or without zeros.

    Images keep the annotation's names as their ids and its order. Those that the folder lacks are
    left out. Each belongs to the split in which it is published; where one of the splits would be
    empty, as of a small part of the data set, those that are there are cut in three, unless the
    user has `chosen` the splits. `more` is what else the content depends on. Raises UsageError
    where a file is none of the annotation's, two files are of one image, a chosen split is empty,
    or names count from 1 where the annotation counts from 0.
    """
    sizes = list_images(images, deep=False)
    if not sizes:
        deeper = next(iter(list_images(images)), None)
        below = images / Path(deeper or "").parent
        hint = f"move them up from {below}" if deeper else "put the images there"
        raise UsageError("the folder holds no image", where=str(images), hint=hint)
    files = _files(images, sizes, annotation)
    there = [n for n in annotation.names if n in files]
    splits = {split: [n for n in names if n in files] for split, names in published.items()}
    if empty := [split for split, names in splits.items() if not names]:
        if chosen:
            raise UsageError(f"there is no image of the split {empty[0]}", where=str(images))
        splits = {split: [*names] for split, names in cut_in_three(there).items()}
    layout = file_layout(name, images, splits, sizes, annotation.of, files)
    contents = [layout.contents, annotation.content_hash, *more]
    return Layout(layout.name, layout.splits, contents, layout.labels)


def _files(images: Path, sizes: Sizes, annotation: Annotation) -> dict[str, str]:
    """Name in the annotation → file in the folder."""
    of = {number_of(name): name for name in annotation.names}
    _refuse_shifted(images, {number_of(file) for file in sizes}, of)
    files: dict[str, str] = {}
    strangers = [file for file in sizes if number_of(file) not in of]
    if strangers:
        several = "images are" if len(strangers) > 1 else "image is"
        raise UsageError(
            f"{len(strangers):,} {several} not in the annotation",
            where=str(images / strangers[0]),
            hint="move it away" if len(strangers) == 1 else "move them away",
        )
    for file in sizes:
        name = of[number_of(file)]
        if (other := files.setdefault(name, file)) != file:
            raise UsageError(
                f"{other} and {file} are both image {name} of the annotation",
                where=str(images),
                hint="keep one of them",
            )
    return files


def _refuse_shifted(images: Path, numbers: set[str], of: Mapping[str, str]) -> None:
    """Refuse names from 1 where the annotation's begin with 0: every label would be another's."""
    last = str(len(numbers))
    counted = numbers == {str(i) for i in range(1, len(numbers) + 1)}
    if counted and len(numbers) > 1 and "0" in of:
        raise UsageError(
            f"images are numbered 1 to {last}, those of the annotation from 0",
            where=str(images),
            hint="if they are counted from 1, subtract 1 from each name; if image 0 is merely "
            "missing, put it there or leave another one out",
        )
