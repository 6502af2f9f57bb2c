"""The pictures of one concept side by side: rows are methods, columns equal effects or strengths.

Every picture carries its scores: the change of the target and of all other attributes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from casl_bench.core.files import write_bytes
from casl_bench.core.text import visible
from casl_bench.report.grouping import RowKey
from casl_bench.report.html.figures import Style, label, slug
from casl_bench.report.markdown import number
from casl_bench.results.edited_images import LARGEST, EditedImages, Pixels, at_most
from casl_bench.results.record import LevelResult, RunRecord
from casl_bench.results.score_table import ScoreTable

# What one edit did to one image: the change of every attribute, in σ, from the stored scores.

Floats = NDArray[np.float64]


def image_changes(
    cell: Kept, spreads: Mapping[str, Floats], strength: float, image: int
) -> dict[str, float | None]:
    """Attribute → change of an image against its reconstruction, by the primary classifier.

    None where the classifier's σ is not among `spreads`, classifier → [A] σ; {} without scores.
    """
    table, classifiers = cell.scores, cell.record.judges
    if table is None or strength not in table.strengths or image >= len(table.image_ids):
        return {}
    classifier = classifiers[0] if classifiers else table.classifiers[0]
    k, s = table.classifiers.index(classifier), table.strengths.index(strength)
    moved = table.edit_logits[k, s, image] - table.reconstruction_logits[k, image]
    sd = spreads.get(classifier, np.full(len(table.attributes), np.nan))
    return {
        name: None if np.isnan(value) else round(float(value), 4)
        for name, value in zip(table.attributes, moved / sd, strict=True)
    }


# Many small pictures in one file: what a page shows of them is a matter of place.

FOLDER = "images"
_QUALITY = 88
_COLUMNS = 12


@dataclass
class Sheet:
    """Pictures of one size that go into one WebP file, in the order in which they are added."""

    name: str
    _tiles: list[Pixels] = field(default_factory=list)

    def add(self, picture: Pixels) -> int:
        """Put a picture [H, W, 3] on the sheet; returns its number."""
        self._tiles.append(at_most(picture, LARGEST))
        return len(self._tiles) - 1

    def style(self, number: int) -> str:
        """Position and size of a picture as CSS of an element that shows it; no names in it."""
        rows = -(-len(self._tiles) // _COLUMNS)
        row, column = divmod(number, _COLUMNS)
        x, y = 100 * column / (_COLUMNS - 1), 100 * row / max(rows - 1, 1)
        return (
            f"background-size:{100 * _COLUMNS}% {100 * rows}%;background-position:{x:.4g}% {y:.4g}%"
        )

    @property
    def file(self) -> str:
        """Relative to the report."""
        return f"{FOLDER}/{self.name}.webp"

    def write(self, report: Path) -> None:
        """Write the file; nothing where there is no picture."""
        if not self._tiles:
            return
        height, width, _ = self._tiles[0].shape
        rows = -(-len(self._tiles) // _COLUMNS)
        canvas = np.zeros((rows * height, _COLUMNS * width, 3), np.uint8)
        for place, tile in enumerate(self._tiles):
            row, column = divmod(place, _COLUMNS)
            canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
        out = io.BytesIO()
        Image.fromarray(canvas).save(out, "WEBP", quality=_QUALITY, method=4)
        write_bytes(report / self.file, out.getvalue())


class Sheets:
    """The files of pictures of one report."""

    def __init__(self, report: Path) -> None:
        self._report, self._numbers = report, count(1)

    def new(self, name: str) -> Sheet:
        """An empty sheet; its file name is distinct by a number and safe for any name."""
        return Sheet(f"{next(self._numbers):03d}-{slug(name)}")

    def write(self, sheet: Sheet) -> None:
        """Keep a full one."""
        sheet.write(self._report)


SHOWN_IMAGES = 3
"""Test images of a concept that a report shows."""
_UNMATCHED = "unmatched"
"""Column of reported strengths that stand at no level: a control's own, or the largest effect."""


@dataclass(frozen=True)
class Kept:
    """A cell with the files that are kept with its record."""

    record: RunRecord
    images: EditedImages
    scores: ScoreTable | None


@dataclass(frozen=True)
class Tile:
    """A picture of the grid; without a style there is none, and `about` says why."""

    style: str
    caption: str
    about: str
    changes: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class Row:
    """A method's pictures of one image."""

    name: str
    series: int
    control: bool
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class ImageGrid:
    """All pictures made of one test image; `given` are those that no method made."""

    image_id: str
    given: tuple[Tile, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class EditGrid:
    """A concept's pictures: one grid per test image, all on one sheet."""

    columns: tuple[str, ...]
    images: tuple[ImageGrid, ...]
    sheet: Sheet


def edit_grid(
    kept: Mapping[RowKey, Kept],
    styles: Mapping[RowKey, Style],
    spreads: Mapping[str, Floats],
    sheet: Sheet,
) -> EditGrid:
    """The grid of a concept: rows of cells on the same images; pictures go to the empty sheet."""
    columns = _columns([cell.record for cell in kept.values()])
    first = next(iter(kept.values())).images
    images = min(SHOWN_IMAGES, *(len(cell.images.image_ids) for cell in kept.values()))
    numbers = {
        key: [[sheet.add(edit[i]) for edit in cell.images.edits] for i in range(images)]
        for key, cell in kept.items()
    }
    given = [_given_numbers(first, kept, i, sheet) for i in range(images)]
    grids = []
    for i in range(images):
        image_id = first.image_ids[i]
        rows = [
            Row(
                label(key),
                styles[key].series,
                key[0],
                _row(key, cell, numbers[key][i], i, columns, spreads, sheet),
            )
            for key, cell in kept.items()
        ]
        tiles = tuple(Tile(sheet.style(n), what, f"{what} of {image_id}") for what, n in given[i])
        grids.append(ImageGrid(image_id, tiles, tuple(rows)))
    return EditGrid(tuple(heading for heading, _ in columns), tuple(grids), sheet)


def _given_numbers(
    first: EditedImages, kept: Mapping[RowKey, Kept], i: int, sheet: Sheet
) -> list[tuple[str, int]]:
    """(what, number on the sheet) of the pictures that no method made."""
    pictures = {"source": first.source[i], "reconstruction": first.reconstruction[i]}
    for cell in kept.values():
        if cell.images.oracle is not None:
            pictures.setdefault("oracle", cell.images.oracle[i])
    return [(what, sheet.add(picture)) for what, picture in pictures.items()]


def _columns(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(heading, name) of levels of effect, or of strengths where nothing is matched."""
    methods = [r for r in records if not r.control] or list(records)
    names = dict.fromkeys(level.name for r in methods for level in r.levels)
    columns = [(_level_title(name), name) for name in names]
    if not columns:
        strengths = sorted({s for r in methods for s in r.strengths})
        columns = [(f"strength {s:g}", f"{s:g}") for s in strengths]
    if any(r.strength not in _places(r, columns).values() for r in records):
        columns.append(("not matched", _UNMATCHED))
    return columns


def _places(record: RunRecord, columns: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Column → the strength at which a record stands there."""
    names = [name for _, name in columns]
    at = {level.name: level.strength for level in record.levels if level.strength is not None}
    at = at or {f"{s:g}": s for s in record.strengths}
    places = {name: at[name] for name in names if name in at}
    if _UNMATCHED in names and record.strength is not None:
        places |= {} if record.strength in places.values() else {_UNMATCHED: record.strength}
    return places


def _row(
    key: RowKey,
    cell: Kept,
    numbers: Sequence[int],
    image: int,
    columns: Sequence[tuple[str, str]],
    spreads: Mapping[str, Floats],
    sheet: Sheet,
) -> tuple[Tile, ...]:
    """One tile per column; a column without a picture says why."""
    strengths = cell.images.strengths
    levels = {level.name: level for level in cell.record.levels}
    places = _places(cell.record, columns)
    tiles = []
    for heading, name in columns:
        strength, level = places.get(name), levels.get(name)
        if strength is not None and strength in strengths:
            way = ", wrong way" if level is not None and level.status == "wrong_way" else ""
            found = image_changes(cell, spreads, strength, image)
            picture = sheet.style(numbers[strengths.index(strength)])
            tiles.append(_tile(key, cell.record, strength, heading + way, found, picture))
        elif level is not None and level.strength is None:
            tiles.append(_absent(level, bool(spreads)))
        else:
            tiles.append(Tile("", "", "" if name == _UNMATCHED else "not run"))
    return tuple(tiles)


def _level_title(name: str) -> str:
    """A level as the heading of a column."""
    kind, _, share = name.partition("_")
    if kind == "effect":
        return f"{share} % effect"
    return f"{share} % flipped" if kind == "flip" else "strength 1"


def _absent(level: LevelResult, has_unit: bool) -> Tile:
    unit = " σ" if level.unit == "sd" else ""
    largest = level.largest if has_unit else None
    most = "" if largest is None else f", at most {number(largest)}{unit}"
    return Tile("", "", f"{level.status_in_words}{most}")


def _tile(
    key: RowKey,
    record: RunRecord,
    strength: float,
    note: str,
    found: Mapping[str, float | None],
    style: str,
) -> Tile:
    """A picture with its scores, in words and as numbers."""
    concept = record.concept or ""
    target = found.get(concept)
    others = [(name, value) for name, value in found.items() if name != concept]
    sizes = [abs(value) for _, value in others if value is not None]
    ordered = sorted(others, key=lambda item: -abs(item[1] or 0.0))
    changes = ((concept, target), *ordered) if concept in found else tuple(ordered)
    words = [f"{label(key)}, {note}, strength {strength:g}"]
    if target is not None:
        words.append(f"target {concept} {_signed(target)} σ")
    if sizes:
        words.append(f"others {number(sum(sizes) / len(sizes))} σ on average")
    caption = f"{_signed(target)} σ" if target is not None else f"× {strength:g}"
    shown = tuple((visible(name), value) for name, value in changes)
    return Tile(style, caption, "; ".join(words), shown)


def _signed(value: float) -> str:
    text = number(value)
    return text if text.startswith("−") or value == 0 else f"+{text}"
