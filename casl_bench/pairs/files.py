"""Folders of pictures, matched by name, and CSV files of logits."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from torch import Tensor

from casl_bench.core.errors import BenchError, UsageError
from casl_bench.core.files import regular
from casl_bench.metrics.edit_scores import Array
from casl_bench.photos.layouts import list_images
from casl_bench.photos.photo_file import SUFFIXES, read_photo

SIZE = 256
"""Side in pixels at which pictures are compared: the square in their middle, resized."""

NAMED = 5
"""At most so many files are named in a line."""


@dataclass(frozen=True)
class Pair:
    """A picture before and after an edit, under the name that they share."""

    name: str
    source: Path
    edited: Path


@dataclass(frozen=True)
class Matched:
    """Pairs in order of name, and sentences about the files that are in none."""

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...] = ()


def match_folders(source: Path, edited: Path) -> Matched:
    """Pictures of two folders by their names below them, without the ending.

    Raises:
        UsageError: if a folder is none, or no name is in both.
    """
    found = [_by_stem(folder) for folder in (source, edited)]
    (before, problems), (after, more) = found
    names = sorted(before.keys() & after.keys())
    if not names:
        raise UsageError(
            "no picture of one folder has the name of one in the other",
            where=f"{source}, {edited}",
            hint="name an edited picture as its source; endings may differ",
        )
    problems += more
    for folder, own, other in ((source, before, after), (edited, after, before)):
        if alone := sorted(str(own[name]) for name in own.keys() - other.keys()):
            problems.append(f"in {folder.name} without a partner: {listed(alone)}")
    pairs = tuple(Pair(name, source / before[name], edited / after[name]) for name in names)
    return Matched(pairs, tuple(problems))


def _by_stem(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Name without its ending → name; and what is named twice."""
    if not folder.is_dir():
        raise UsageError("no such folder of pictures", where=str(folder))
    found: dict[str, str] = {}
    twice = []
    for name in list_images(folder):
        if found.setdefault(stem(name), name) != name:
            twice.append(name)
    if not found:
        raise UsageError("no picture in the folder", where=str(folder))
    if twice:
        said = f"left out in {folder.name}, another file differs in its ending alone"
        return found, [f"{said}: {listed(twice)}"]
    return found, []


def stem(name: str) -> str:
    """A picture's name below its folder, without the ending of a picture."""
    # macOS writes é as two characters, most others as one.
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in SUFFIXES else path)


def read_pairs(
    pairs: Sequence[Pair], size: int = SIZE
) -> Iterator[tuple[Pair, Tensor, Tensor] | tuple[Pair, str]]:
    """Each pair with its pictures [3, size, size] in [-1, 1], or with why it cannot be read."""
    for pair in pairs:
        try:
            yield pair, read_photo(pair.source, size), read_photo(pair.edited, size)
        except BenchError as error:
            yield pair, f"{error.where}: {error.what}"


def differing_sizes(pairs: Sequence[Pair]) -> list[str]:
    """Names of the pairs whose pictures are of different shapes, with both."""
    found = []
    for pair in pairs:
        try:
            shapes = [_shape(path) for path in (pair.source, pair.edited)]
        except (OSError, Image.DecompressionBombError, ValueError):
            continue  # it is named as unreadable
        if shapes[0] != shapes[1]:
            found.append(f"{pair.name} ({shapes[0]} and {shapes[1]})")
    return found


def _shape(path: Path) -> str:
    with Image.open(regular(path)) as image:
        return "×".join(map(str, image.size))


def listed(names: Sequence[str]) -> str:
    """The first few names with commas, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


# Logits that somebody computed elsewhere.

_IMAGE = ("image", "file", "filename", "path", "name", "id")
_SIDE = ("side", "folder", "which", "set", "split")
_BEFORE = ("source", "src", "before", "original", "base")
_AFTER = ("edit", "edited", "after")
_LAYOUT = (
    "write columns image, side (source or edit) and one per attribute; or give two files with "
    "image and attributes, the sources' first"
)


@dataclass(frozen=True)
class Logits:
    """Logits [n, A] before and after of n named images."""

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    before: Array
    after: Array
    problems: tuple[str, ...] = ()


def read_logits(files: Sequence[Path], folders: Sequence[Path] = ()) -> Logits:
    """Logits from one CSV file with a column `side`, or from two files, the sources' first.

    The column of images is called image, file, filename, path, name or id, else it is the first.
    All others that have a name are attributes. In one file without a column `side` the folder in an
    image's path says whether it is a source or an edit.

    Args:
        files: one or two.
        folders: of the sources and of the edits; their names may begin the paths in the files.

    Raises:
        UsageError: if a file cannot be read, says something twice or no number, or no image is on
            both sides.
    """
    if len(files) not in (1, 2):
        raise UsageError(f"{len(files)} files of logits", hint="give one or two")
    tables = [_read_csv(path) for path in files]
    if len(files) == 1:
        tables = _sides(tables[0], folders)
    before, after = tables
    attributes = before.attributes
    if odd := sorted({*attributes} ^ {*after.attributes}):
        raise UsageError(
            f"the files have different attributes: {', '.join(odd)}",
            where=", ".join(map(str, files)),
            hint="score both sides with the same classifier",
        )
    sides = [_logits_by_name(table, attributes, folders) for table in tables]
    names = sorted(sides[0].keys() & sides[1].keys())
    if not names:
        raise UsageError(
            "no image has logits before and after", where=", ".join(map(str, files)), hint=_LAYOUT
        )
    problems = [
        f"images with logits {what} the edit only: {listed(sorted(alone))}"
        for what, alone in (
            ("before", sides[0].keys() - sides[1].keys()),
            ("after", sides[1].keys() - sides[0].keys()),
        )
        if alone
    ]
    arrays = [np.array([side[name] for name in names], dtype=np.float64) for side in sides]
    return Logits(tuple(names), attributes, arrays[0], arrays[1], tuple(problems))


@dataclass(frozen=True)
class _Table:
    """A CSV file as text: `rows` are an image, its side or "", and a value per attribute."""

    path: Path
    attributes: tuple[str, ...]
    has_sides: bool
    rows: Sequence[tuple[str, str, Sequence[str]]]


def _read_csv(path: Path) -> _Table:
    def bad(what: str, hint: str = _LAYOUT) -> UsageError:
        return UsageError(what, where=str(path), hint=hint)

    try:
        text = regular(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad("not text in UTF-8", "save it as CSV in UTF-8") from error
    except OSError as error:
        raise bad(f"cannot be read: {error.strerror or error}") from error
    try:
        lines = [line for line in csv.reader(io.StringIO(text), skipinitialspace=True) if line]
    except csv.Error as error:
        raise bad(f"not a CSV file: {error}") from error
    head, *rows = lines or [[""]]
    head = [column.strip() for column in head]
    if len(head) == 1 and any(mark in head[0] for mark in ";\t"):
        raise bad("columns are not separated by commas", "save it with commas between columns")
    if uneven := next((row for row in rows if len(row) != len(head)), None):
        raise bad(f"{len(uneven)} values in the row of '{uneven[0]}', not {len(head)}")
    places = {column.lower(): k for k, column in reversed([*enumerate(head)])}
    image = next((places[c] for c in _IMAGE if c in places), 0)
    side = next((places[c] for c in _SIDE if places.get(c, image) != image), None)
    # A column without a name is the index that pandas writes.
    own = [k for k, column in enumerate(head) if column and k not in (image, side)]
    attributes = tuple(head[k] for k in own)
    if twice := sorted({a for a in attributes if attributes.count(a) > 1}):
        raise bad(f"two columns are called '{twice[0]}'", "give each attribute one column")
    if not own or not rows:
        raise bad("no logits in the file")
    found = [(r[image], "" if side is None else r[side], [r[k] for k in own]) for r in rows]
    return _Table(path, attributes, side is not None, found)


def _sides(table: _Table, folders: Sequence[Path]) -> list[_Table]:
    """The rows before and after the edit."""
    own = [folder.name.lower() for folder in folders] or ["", ""]
    words = [{*_BEFORE, own[0]} - {""}, {*_AFTER, own[-1]} - {""}]

    def said(image: str, side: str) -> set[str]:
        if table.has_sides:
            return {side.strip().lower()}
        return {part.lower() for part in PurePosixPath(image.replace("\\", "/")).parts[:-1]}

    are = [[bool(said(image, side) & own) for image, side, _ in table.rows] for own in words]
    if unclear := [r[0] for r, a, b in zip(table.rows, *are, strict=True) if a == b]:
        by = "" if table.has_sides else "without a column 'side', "
        raise UsageError(
            f"{by}neither source nor edit, or both: {listed(unclear)}",
            where=str(table.path),
            hint=_LAYOUT,
        )
    return [replace(table, rows=[*compress(table.rows, side)]) for side in are]


def _logits_by_name(
    table: _Table, attributes: Sequence[str], folders: Sequence[Path]
) -> Mapping[str, list[float]]:
    heads = {*_BEFORE, *_AFTER, *(folder.name.lower() for folder in folders)}
    order = [table.attributes.index(name) for name in attributes]
    found: dict[str, list[float]] = {}
    for image, _, values in table.rows:
        name = stem(image)
        parts = PurePosixPath(name).parts
        places = [k for k, part in enumerate(parts[:-1]) if part.lower() in heads]
        if places:
            name = str(PurePosixPath(*parts[places[-1] + 1 :]))
        if name in found:
            raise UsageError(f"image '{name}' is there twice", where=str(table.path), hint=_LAYOUT)
        found[name] = [_number(values[k]) for k in order]
        if bad := [k for k in order if not np.isfinite(_number(values[k]))]:
            raise UsageError(
                f"image '{name}', {table.attributes[bad[0]]}: '{values[bad[0]]}' is no number",
                where=str(table.path),
                hint="leave out the image, or the column if it is no attribute",
            )
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
