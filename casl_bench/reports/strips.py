"""Pictures of edits side by side: arrays in, one picture out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from casl_bench.core.errors import InputError
from casl_bench.records.edited_images import EditedImages, Pixels

SCALE = 3
"""A 64-pixel image is shown at 192 pixels."""
_GAP, _MARGIN, _TEXT_SIZE = 6, 10, 15
_PAPER, _INK = (255, 255, 255), (30, 30, 36)


@dataclass(frozen=True)
class Row:
    """One row of a picture.

    Attributes:
        label: at its left; may be empty.
        pictures: [H, W, 3] uint8 each; None leaves the place empty.
    """

    label: str
    pictures: tuple[Pixels | None, ...]


def draw_rows(
    columns: Sequence[str], rows: Sequence[Row], *, title: str = "", scale: int = SCALE
) -> Image.Image:
    """Rows of equally large pictures under column titles.

    Args:
        columns: one title a column.
        rows: as many pictures a row as there are columns.
        title: above everything; may be empty.
        scale: enlargement of each picture (Lanczos).

    Raises:
        InputError: if there is no picture, or rows or sizes differ.
    """
    sizes = {p.shape for row in rows for p in row.pictures if p is not None}
    if len(sizes) != 1:
        raise InputError(f"pictures of one size are needed, got {sorted(sizes) or 'none'}")
    if any(len(row.pictures) != len(columns) for row in rows):
        raise InputError(f"every row needs {len(columns)} pictures")
    (height, width, _) = sizes.pop()
    height, width = height * scale, width * scale
    font = ImageFont.load_default(size=_TEXT_SIZE)
    line = _TEXT_SIZE + _GAP
    label_width = max((round(font.getlength(row.label)) for row in rows), default=0)
    left = _MARGIN + (label_width + 2 * _GAP if label_width else 0)
    top = _MARGIN + line * (2 if title else 1)
    right = left + len(columns) * (width + _GAP) - _GAP + _MARGIN
    canvas_width = max(right, _MARGIN * 2 + round(font.getlength(title)))
    canvas = Image.new(
        "RGB", (canvas_width, top + len(rows) * (height + _GAP) - _GAP + _MARGIN), _PAPER
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, _INK, font)
    for c, name in enumerate(columns):
        centre = left + c * (width + _GAP) + width / 2
        draw.text((centre, top - _GAP), name, _INK, font, anchor="ms")
    for r, row in enumerate(rows):
        y = top + r * (height + _GAP)
        draw.text((_MARGIN, y + height / 2), row.label, _INK, font, anchor="lm")
        for c, picture in enumerate(row.pictures):
            if picture is not None:
                enlarged = Image.fromarray(picture).resize(
                    (width, height), Image.Resampling.LANCZOS
                )
                canvas.paste(enlarged, (left + c * (width + _GAP), y))
    return canvas


def column_titles(strengths: Sequence[float], *, oracle: bool) -> tuple[str, ...]:
    """Source, reconstruction, one a strength, and the oracle where it is known."""
    edits = tuple(f"strength {s:g}" for s in strengths)
    return ("source", "reconstruction", *edits, *(("oracle",) if oracle else ()))


def draw_cell(images: EditedImages, *, title: str, max_rows: int = 6) -> Image.Image:
    """A cell's first images: source, reconstruction, every strength, oracle."""
    rows = [_row("", images, i) for i in range(min(len(images.image_ids), max_rows))]
    titles = column_titles(images.strengths, oracle=images.oracle is not None)
    return draw_rows(titles, rows, title=title)


def draw_overview(
    cells: Sequence[tuple[str, EditedImages]], *, image: int = 0, title: str = ""
) -> Image.Image:
    """One row a cell, of one image each.

    Args:
        cells: label and pictures; all with the same strengths.
        image: which of a cell's images is shown (the last one where it has fewer).
        title: above everything; may be empty.

    Raises:
        InputError: if strengths differ or there is no cell.
    """
    strengths = {images.strengths for _, images in cells}
    if len(strengths) != 1:
        raise InputError("cells of the same strengths are needed")
    oracle = any(images.oracle is not None for _, images in cells)
    rows = []
    for label, images in cells:
        row = _row(label, images, min(image, len(images.image_ids) - 1))
        missing = oracle and images.oracle is None
        rows.append(Row(label, (*row.pictures, None)) if missing else row)
    return draw_rows(column_titles(strengths.pop(), oracle=oracle), rows, title=title)


def _row(label: str, images: EditedImages, i: int) -> Row:
    oracle = () if images.oracle is None else (images.oracle[i],)
    edits = tuple(edit[i] for edit in images.edits)
    return Row(label, (images.source[i], images.reconstruction[i], *edits, *oracle))
