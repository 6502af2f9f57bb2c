"""Many small pictures in one file: what a page shows of them is a matter of place.

A picture is shown at any size as the background of an element: sizes and places are in per cent.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from casl_bench.core.files import write_bytes
from casl_bench.html_report.figures import slug
from casl_bench.records.edited_images import Pixels

FOLDER = "images"
LARGEST = 128
"""Pictures are kept at no more pixels a side than this."""
_QUALITY = 88
_COLUMNS = 12


@dataclass
class Sheet:
    """Pictures of one size that go into one WebP file, in the order in which they are added.

    Attributes:
        name: of the file, without its ending.
    """

    name: str
    _tiles: list[Pixels] = field(default_factory=list)

    def add(self, picture: Pixels) -> int:
        """Put a picture [H, W, 3] on the sheet; returns its number."""
        self._tiles.append(_at_most(picture, LARGEST))
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
        for number, tile in enumerate(self._tiles):
            row, column = divmod(number, _COLUMNS)
            canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
        out = io.BytesIO()
        Image.fromarray(canvas).save(out, "WEBP", quality=_QUALITY, method=4)
        write_bytes(report / self.file, out.getvalue())


def new_sheet(number: int, name: str) -> Sheet:
    """A sheet whose file name is distinct by its number and harmless whatever the name holds."""
    return Sheet(f"{number:03d}-{slug(name)}")


def _at_most(picture: Pixels, side: int) -> Pixels:
    height, width, _ = picture.shape
    if max(height, width) <= side:
        return picture
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
