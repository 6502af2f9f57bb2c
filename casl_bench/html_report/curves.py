"""What a method does as its strength grows: dose and response, precision and effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from casl_bench.html_report.figures import Drawing, Figures, gid
from casl_bench.html_report.styles import INK, Style
from casl_bench.records.record import Measurement, RunRecord
from casl_bench.reports.grouping import Group, RowKey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_EFFECT, _PRECISION = "signed_target_change", "epr_floored"


@dataclass(frozen=True)
class _Line:
    """A curve: its points in order of strength, and the band around it where intervals are."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


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
    lines = {key: _line(_by_strength(r, _EFFECT)) for key, r in records.items()}
    if any(lines.values()):
        with figures.axes() as axes:
            series = _draw(axes, lines, rows)
            axes.axhline(0, color=INK, linewidth=0.6)
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)
            axes.set(xlabel="strength", ylabel="target change (σ)")
            title = f"{place}: target change by strength, {images} images"
            found.append(figures.keep(axes, f"{place}-response", title, series))
    lines = {key: _line(_by_effect(r)) for key, r in records.items()}
    if any(lines.values()):
        with figures.axes() as axes:
            series = _draw(axes, lines, rows)
            axes.axhline(1, color=INK, linewidth=0.6)
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
            axes.set(xlabel="target change (σ)", ylabel="EPR ≥")
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


def _by_strength(record: RunRecord, name: str) -> list[tuple[float, Measurement]]:
    points = sorted(record.curve, key=lambda point: point.strength)
    return [
        (p.strength, m)
        for p in points
        if (m := p.measurements.get(name)) is not None and p.strength > 0
    ]


def _by_effect(record: RunRecord) -> list[tuple[float, Measurement]]:
    """Precision, each at the effect of its strength; what is not positive has no place on a log."""
    effects = {s: m.value for s, m in _by_strength(record, _EFFECT)}
    return [
        (x, m)
        for s, m in _by_strength(record, _PRECISION)
        if (x := effects.get(s)) is not None and m.value is not None and m.value > 0
    ]


def _line(points: Sequence[tuple[float, Measurement]]) -> _Line | None:
    """The points that have a number; None where there is none."""
    known = [(x, m, m.value) for x, m in points if m.value is not None]
    if not known:
        return None
    return _Line(
        tuple(x for x, _, _ in known),
        tuple(value for _, _, value in known),
        tuple(value if m.low is None else m.low for _, m, value in known),
        tuple(value if m.high is None else m.high for _, m, value in known),
    )


def _draw(
    axes: Axes, lines: Mapping[RowKey, _Line | None], styles: Mapping[RowKey, Style]
) -> dict[int, str]:
    """Lines with bands and a legend under the axes; returns the names of their series."""
    series = {}
    for key, line in lines.items():
        if line is None:
            continue
        style, name = styles[key], label(key)
        (curve,) = axes.plot(
            line.x, line.y, color=style.colour, linestyle=style.dash, marker=style.marker,
            label=name,
        )  # fmt: skip
        curve.set_gid(gid(style.series, 0))
        band = axes.fill_between(line.x, line.low, line.high, color=style.colour, alpha=0.14,
                                 linewidth=0)  # fmt: skip
        band.set_gid(gid(style.series, 1))
        series[style.series] = name
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return series


def label(key: RowKey) -> str:
    """A row's name in a figure."""
    control, method, beside = key
    name = f"{method} beside {beside}" if beside else method
    return f"{name} (control)" if control else name
