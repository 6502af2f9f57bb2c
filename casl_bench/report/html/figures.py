"""A matplotlib figure, three times: SVG and PNG for papers, and SVG markup for a page.

In the page, lines of a method can be hidden together, and text has the page's font and colour,
light or dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from casl_bench.core.text import visible
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.report.columns import EPR_FLOORED, TARGET_CHANGE, probe_name
from casl_bench.report.grouping import Group, RowKey
from casl_bench.report.markdown import DASH, number
from casl_bench.report.models import attributes_of
from casl_bench.results.record import Comparison, Measurement, RunRecord, Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
# How a method looks in every figure: its own colour, dash and marker.

INK = "#010203"
"""Text and axes; a page turns it into the colour of its own text."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_DASH_ARRAYS = {"-": "none", "--": "5 3", "-.": "7 2 2 2", ":": "2 2"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_GREY = "#888888"
_INKED = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")


@dataclass(frozen=True)
class Style:
    """Of one row; `series` is its number in a page, shared by its curves and its check box."""

    series: int
    colour: str
    dash: str
    marker: str

    @property
    def dash_array(self) -> str:
        """The dash as SVG has it."""
        return _DASH_ARRAYS[self.dash]


def styles_of(rows: Iterable[RowKey]) -> dict[RowKey, Style]:
    """A style per row; controls are grey, and no two methods look alike."""
    found: dict[RowKey, Style] = {}
    for row in rows:
        place = sum(row.control == other.control for other in found)
        colour = _GREY if row.control else _COLOURS[place % len(_COLOURS)]
        turn = place if row.control else place // len(_COLOURS)
        found[row] = Style(
            len(found), colour, _DASHES[turn % len(_DASHES)], _MARKERS[place % len(_MARKERS)]
        )
    return found


FOLDER = "figures"
_PNG_DPI = 160
_GROUP = re.compile(r'<g id="series-(\d+)-\d+">')
_PATH, _FRACTION = re.compile(r' (?:d|x|y)="[^"]*"'), re.compile(r"(\.\d\d)\d+")
_ID = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True)
class Drawing:
    """A figure in a report: inline SVG, and its files relative to the report."""

    markup: Markup
    title: str
    svg: str
    png: str


class Figures:
    """Draws the figures of one report into `figures/` of its folder."""

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
            **dict.fromkeys(_INKED, INK),
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
        """Write the figure's files, within `axes`; `series` names rows whose artists have a gid."""
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
    return visible(out.getvalue(), keep="\n")  # XML knows no control characters


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
            f"<title>{escape(visible(series[number]))}</title>"
        )

    body = _GROUP.sub(group, body)
    # A hundredth of a point is finer than any screen.
    body = _PATH.sub(lambda found: _FRACTION.sub(r"\1", found[0]), body)
    body = _ID.sub(lambda found: f"{found[0]}{prefix}-", body)
    label = escape(visible(title), quote=True)
    body = body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Markup(body)


# Figures of a data set as a whole: standings with their intervals, probe accuracy by k.

_PROBES = {
    "top_units": ("best (latent, position) units", "#0072B2", "-", "o"),
    "top_latents": ("best latents, pooled", "#009E73", "--", "s"),
    "random_units": ("random units", "#D55E00", "-.", "^"),
    "random_latents": ("random latents, pooled", "#CC79A7", ":", "D"),
}
"""Feature → name, colour, dash and marker."""


def standings_chart(
    found: Comparison, where: str, styles: Mapping[RowKey, Style], figures: Figures
) -> Drawing:
    """What ranks every method, precise edits or EPR+, with both intervals, best on top."""
    series = {}
    with figures.axes(5.2, 1.0 + 0.36 * len(found.standings)) as axes:
        for place, standing in enumerate(found.standings):
            style = styles[RowKey(False, standing.method)]
            for part, (m, width) in enumerate(
                ((_ranking(standing), 1.4), (_ranking_here(standing), 4.0))
            ):
                if m.low is not None and m.high is not None:
                    (bar,) = axes.plot([m.low, m.high], [place, place], color=style.colour,
                                       linewidth=width, alpha=0.55 if part else 1.0,
                                       solid_capstyle="butt")  # fmt: skip
                    bar.set_gid(gid(style.series, part))
            if (value := _ranking(standing).value) is not None:
                (mark,) = axes.plot([value], [place], color=style.colour,
                                    marker=style.marker, markersize=7)  # fmt: skip
                mark.set_gid(gid(style.series, 2))
            series[style.series] = standing.method
        if found.headline is None:
            _epr_axis(axes, found)
        else:
            axes.set_xlim(0, 1)
            axes.set_xlabel("share of precise edits")
        axes.set_yticks(range(len(found.standings)), [s.method for s in found.standings])
        axes.set_ylim(len(found.standings) - 0.5, -0.5)
        what = "EPR+ at equal effect" if found.headline is None else "precise edits"
        title = f"{where}: {what}; thin: other concepts, thick: these concepts"
        return figures.keep(axes, f"{where}-standings", title, series)


def _ranking(standing: Standing) -> Measurement:
    return standing.headline or standing.epr_plus


def _ranking_here(standing: Standing) -> Measurement:
    return standing.headline_here or standing.epr_plus_here


def _epr_axis(axes: Axes, found: Comparison) -> None:
    """The scale on which EPR+ is averaged and compared: sign(x) log(1 + |x|)."""
    axes.axvline(1, color=INK, linewidth=0.6, linestyle=":")
    axes.set_xscale("function", functions=(signed_log, signed_exp))
    ticks = _ticks(found)
    axes.set_xticks(ticks, [number(tick, 0) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("EPR+ (1 is chance)")


def _ticks(found: Comparison) -> list[float]:
    """1, 3, 10, … with 0 and the same below it; fewer where intervals are very wide."""
    ends = [e for s in found.standings for e in (s.epr_plus.low, s.epr_plus.high) if e is not None]
    low, high = min([0.0, *ends]), max([1.0, *ends])
    decades = np.log10(max(-low, high))
    sizes = [s * 10.0**k for k in range(0, int(decades) + 1, max(1, int(decades) // 3))
             for s in ((1, 3) if decades < 4 else (1,))]  # fmt: skip
    return [t for t in (*(-s for s in reversed(sizes)), 0, *sizes) if low <= t <= high]


def probe_chart(
    records: Sequence[RunRecord], where: str, method: str, figures: Figures
) -> Drawing | None:
    """Accuracy by number of features, mean over concepts; the band holds all concepts."""
    ks = sorted({k for r in records for name in r.measurements if (k := probe_name(name)[1])})
    if not ks:
        return None
    with figures.axes() as axes:
        for feature, (name, colour, dash, marker) in _PROBES.items():
            at = {k: _values(records, f"{feature}.k{k}") for k in ks}
            shown = [k for k in ks if len(at[k]) == len(records)]
            if not shown:
                continue
            means = [float(np.mean(at[k])) for k in shown]
            axes.plot(shown, means, color=colour, linestyle=dash, marker=marker, label=name)
            axes.fill_between(shown, [min(at[k]) for k in shown], [max(at[k]) for k in shown],
                              color=colour, alpha=0.14, linewidth=0)  # fmt: skip
        majority = _values(records, "majority")
        if len(majority) == len(records):
            axes.axhline(float(np.mean(majority)), color=INK, linewidth=0.8, linestyle=":",
                         label="majority class")  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set(xlabel="k features", ylabel="probe accuracy", ylim=(None, 1.02))
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        over = f"mean and range over concepts ({len(records)})"
        title = f"{where}: accuracy of a probe on k features ranked by {method}, {over}"
        return figures.keep(axes, f"{where}-{method}-probe", title, {})


def _values(records: Sequence[RunRecord], name: str) -> list[float]:
    found = [r.measurements.get(name) for r in records]
    return [m.value for m in found if m is not None and m.value is not None]


# Curves over strength: dose and response, precision and effect.

_Points = list[tuple[float, float, float, float]]
"""x, y and the ends of the band around y, in order of strength."""


def concept_curves(
    group: Group, concept: str, rows: Mapping[RowKey, Style], figures: Figures
) -> list[Drawing]:
    """Both figures of a concept; none of those for which no record has a curve."""
    records = {
        key: record
        for key in rows
        if key in group.edits and (record := group.done(key).get(concept)) and record.curve
    }
    if not records:
        return []
    images = "validation" if any(r.curve_on == "validation" for r in records.values()) else "test"
    place = f"{group.records[0].dataset}, {concept}"
    found = []
    response = {k: p for k, r in records.items() if (p := _by_strength(r, TARGET_CHANGE.name))}
    if response:
        with figures.axes() as axes:
            series = _draw(axes, response, rows)
            axes.axhline(0, color=INK, linewidth=0.6)
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)
            axes.set(xlabel="strength", ylabel=TARGET_CHANGE.label)
            title = f"{place}: target change by strength, {images} images"
            found.append(figures.keep(axes, f"{place}-response", title, series))
    precision = {k: p for k, r in records.items() if (p := _by_effect(r))}
    if precision:
        with figures.axes() as axes:
            series = _draw(axes, precision, rows)
            axes.axhline(1, color=INK, linewidth=0.6)
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
            axes.set(xlabel=TARGET_CHANGE.label, ylabel=EPR_FLOORED.label)
            title = f"{place}: precision by effect, {images} images"
            found.append(figures.keep(axes, f"{place}-precision", title, series))
    return found


def _plain_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, as many as are read without turning the head."""
    from matplotlib.ticker import NullLocator

    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high / low < 50 else (1, 3)
    ticks = [m * 10.0**e for e in range(-4, 5) for m in steps if low <= m * 10.0**e <= high]
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def _by_strength(record: RunRecord, name: str) -> _Points:
    """A measurement's numbers, each at its strength."""
    found = []
    for point in sorted(record.curve, key=lambda point: point.strength):
        m = point.measurements.get(name)
        if m is not None and m.value is not None and point.strength > 0:
            low, high = (m.value if end is None else end for end in (m.low, m.high))
            found.append((point.strength, m.value, low, high))
    return found


def _by_effect(record: RunRecord) -> _Points:
    """Precision, each at the effect of its strength; what is not positive has no place on a log."""
    effects = {s: effect for s, effect, _, _ in _by_strength(record, TARGET_CHANGE.name)}
    return [
        (effects[s], y, low, high)
        for s, y, low, high in _by_strength(record, EPR_FLOORED.name)
        if s in effects and y > 0
    ]


def _draw(
    axes: Axes, lines: Mapping[RowKey, _Points], styles: Mapping[RowKey, Style]
) -> dict[int, str]:
    """Lines with bands and a legend under the axes; returns the names of their series."""
    series = {}
    for key, points in lines.items():
        style, name = styles[key], label(key)
        x, y, low, high = zip(*points, strict=True)
        (curve,) = axes.plot(
            x, y, color=style.colour, linestyle=style.dash, marker=style.marker, label=name
        )
        curve.set_gid(gid(style.series, 0))
        band = axes.fill_between(x, low, high, color=style.colour, alpha=0.14, linewidth=0)
        band.set_gid(gid(style.series, 1))
        series[style.series] = name
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return series


def label(key: RowKey) -> str:
    """A row's name in a figure."""
    return f"{key.name} (control)" if key.control else key.name


# Off-target shift: a matrix of concepts × attributes per method, shaded by size.


@dataclass(frozen=True)
class Cell:
    """Mean change of an attribute in σ; `shade` in [0, 1], `sign` "up", "down" or ""."""

    text: str
    shade: float
    sign: str
    target: bool


@dataclass(frozen=True)
class Matrix:
    """Of one method: (concept, its cells), a cell per attribute."""

    name: str
    attributes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def shift_matrices(group: Group) -> list[Matrix]:
    """One per method and control that has any shift; not of repeated or matched controls."""
    found = []
    for row in group.rows:
        attributes = tuple(attributes_of(row.done.values()))
        if attributes and row.key.is_first_of_its_kind:
            rows = tuple(
                (c, tuple(_cell(r.drift.get(a), a == c) for a in attributes))
                for c, r in sorted(row.done.items())
            )
            found.append(Matrix(label(row.key), attributes, rows))
    return found


def _cell(shift: float | None, target: bool) -> Cell:
    if shift is None:
        return Cell(DASH, 0.0, "", target)
    sign = "up" if shift > 0 else "down"
    # From 1 σ on a cell has its full colour.
    return Cell(number(shift), min(1.0, abs(shift)), sign, target)
