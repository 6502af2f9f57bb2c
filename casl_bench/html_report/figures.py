"""A matplotlib figure, three times: SVG and PNG for papers, and SVG markup for a page.

In the page, lines of a method are a group that can be hidden, text is the page's text, and ink is
the page's ink, light or dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from PIL import Image

from casl_bench.html_report.styles import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "figures"
_PNG_DPI = 160
_GROUP = re.compile(r'<g id="series-(\d+)-\d+">')
_PATH, _FRACTION = re.compile(r' (?:d|x|y)="[^"]*"'), re.compile(r"(\.\d\d)\d+")
_ID = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True)
class Drawing:
    """A figure in a report.

    Attributes:
        markup: inline SVG.
        title: what it shows, in words.
        svg: its file, relative to the report.
        png: its file, relative to the report.
    """

    markup: Markup
    title: str
    svg: str
    png: str


class Figures:
    """Draws the figures of one report.

    Args:
        folder: of the report; files go into `figures/` of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder / FOLDER, 0

    @contextmanager
    def axes(self, width: float = 4.6, height: float = 3.4) -> Iterator[Axes]:
        """Axes of a new figure, so many inches large, in this report's style."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        rc: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": "casl-bench",
            "text.parse_math": False,
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "lines.linewidth": 1.4,
            "lines.markersize": 4.5,
        }
        with mpl.rc_context(rc), warnings.catch_warnings():
            # A name in letters that the font lacks is shown as boxes in the PNG alone.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            yield Figure(figsize=(width, height), layout="constrained").add_subplot()

    def keep(self, axes: Axes, name: str, title: str, series: dict[int, str]) -> Drawing:
        """Write the figure's files; call it within `axes`.

        Args:
            axes: of this object.
            name: of the files; made safe and distinct here.
            title: what it shows, for those who cannot see it.
            series: number of a row → its name; of the rows whose artists have `gid` set.
        """
        figure = axes.get_figure(root=True)
        assert figure is not None
        self._count += 1
        stem = f"{self._count:03d}-{slug(name)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        svg = _svg(figure)
        (self._folder / f"{stem}.svg").write_text(svg, encoding="utf-8")
        (self._folder / f"{stem}.png").write_bytes(_png(figure))
        markup = _inline(svg, f"f{self._count}", title, series)
        return Drawing(markup, title, f"{FOLDER}/{stem}.svg", f"{FOLDER}/{stem}.png")


def gid(series: int, part: int) -> str:
    """Name of an artist that belongs to a row: parts are lines, bands, marks."""
    return f"series-{series}-{part}"


def slug(name: str) -> str:
    """A name as a part of a file name: nothing but letters, digits, `-` and `_`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "x"


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    return out.getvalue()


def _png(figure: Figure) -> bytes:
    """With 256 colours, which is a quarter of the size and looks the same."""
    drawn, kept = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_PNG_DPI)
    with Image.open(drawn) as picture:
        colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(kept, "PNG", optimize=True, dpi=(_PNG_DPI, _PNG_DPI))
    return kept.getvalue()


def _inline(svg: str, prefix: str, title: str, series: dict[int, str]) -> Markup:
    """The figure as a part of a page: ids of its own, the page's ink, groups that can be named."""
    body = svg[svg.index("<svg") :].replace(INK, "currentColor")

    def group(found: re.Match[str]) -> str:
        number = int(found[1])
        return (
            f'{found[0][:-1]} class="series" data-series="{number}">'
            f"<title>{escape(series[number])}</title>"
        )

    body = _GROUP.sub(group, body)
    # A hundredth of a point is finer than any screen.
    body = _PATH.sub(lambda found: _FRACTION.sub(r"\1", found[0]), body)
    body = _ID.sub(lambda found: f"{found[0]}{prefix}-", body)
    label = escape(title, quote=True)
    body = body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Markup(body)
