"""Folders of pictures, matched by name, and CSV files of logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from casl_bench.core.errors import BenchError, InputError, UsageError
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
    path = PurePosixPath(name.strip().replace("\\", "/"))
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
    All others are attributes. In one file without a column `side` the folder in an image's path
    says whether it is a source or an edit.

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
    columns = [[c for c in t.columns if c not in (_IMAGE_KEY, _SIDE_KEY)] for t in tables]
    if len(files) == 2:
        if sorted(columns[0]) != sorted(columns[1]):
            odd = sorted({*columns[0]} ^ {*columns[1]})
            raise UsageError(
                f"the files have different attributes: {', '.join(odd)}",
                where=", ".join(map(str, files)),
                hint="score both sides with the same classifier",
            )
        before, after = tables
    else:
        before, after = _sides(tables[0], files[0], folders)
    attributes = tuple(columns[0])
    sides = [
        _rows(t, attributes, path, folders)
        for t, path in zip((before, after), (files[0], files[-1]), strict=True)
    ]
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


_IMAGE_KEY, _SIDE_KEY = "\0image", "\0side"


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            regular(path), dtype=str, keep_default_na=False, encoding="utf-8-sig",
            skipinitialspace=True,
        )  # fmt: skip
    except (OSError, ValueError, pd.errors.ParserError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"not a CSV file: {line}", where=str(path), hint=_LAYOUT) from error
    table.columns = pd.Index([str(c).strip() for c in table.columns])
    lower = {c.lower(): c for c in reversed([*table.columns])}
    image = next((lower[c] for c in _IMAGE if c in lower), next(iter(table.columns), None))
    side = next((lower[c] for c in _SIDE if c in lower and lower[c] != image), None)
    names = {image: _IMAGE_KEY} | ({side: _SIDE_KEY} if side is not None else {})
    table = table.rename(columns=names)
    if len(table.columns) < 2 or not len(table):
        raise UsageError("no logits in the file", where=str(path), hint=_LAYOUT)
    return table


def _sides(
    table: pd.DataFrame, path: Path, folders: Sequence[Path]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    own = [folder.name.lower() for folder in folders] or ["", ""]
    words = [{*_BEFORE, own[0]} - {""}, {*_AFTER, own[-1]} - {""}]
    if _SIDE_KEY in table.columns:
        said = [{value.strip().lower()} for value in table[_SIDE_KEY]]
    else:
        parents = (PurePosixPath(v.replace("\\", "/")).parts[:-1] for v in table[_IMAGE_KEY])
        said = [{part.lower() for part in parts} for parts in parents]
    is_before = np.array([bool(s & words[0]) for s in said])
    is_after = np.array([bool(s & words[1]) for s in said])
    if unclear := [*table[_IMAGE_KEY][is_before == is_after]]:
        raise UsageError(
            f"neither source nor edit, or both: {listed(unclear)}", where=str(path), hint=_LAYOUT
        )
    return table[is_before], table[is_after]


def _rows(
    table: pd.DataFrame, attributes: Sequence[str], path: Path, folders: Sequence[Path]
) -> Mapping[str, list[float]]:
    heads = {*_BEFORE, *_AFTER, *(folder.name.lower() for folder in folders)}
    found: dict[str, list[float]] = {}
    for image, *values in table[[_IMAGE_KEY, *attributes]].itertuples(index=False):
        name = stem(image)
        parts = PurePosixPath(name).parts
        places = [k for k, part in enumerate(parts[:-1]) if part.lower() in heads]
        if places:
            name = str(PurePosixPath(*parts[places[-1] + 1 :]))
        if name in found:
            raise UsageError(f"image '{name}' is there twice", where=str(path), hint=_LAYOUT)
        try:
            found[name] = [float(value) for value in values]
        except ValueError as error:
            raise UsageError(f"image '{name}': {error}", where=str(path), hint=_LAYOUT) from error
        if not np.isfinite(found[name]).all():
            raise InputError(f"image '{name}' has a logit that is no number", where=str(path))
    return found
