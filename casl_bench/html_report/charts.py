"""Figures of a data set as a whole: standings with their intervals, probe accuracy by k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from casl_bench.html_report.figures import Drawing, Figures, gid
from casl_bench.html_report.styles import INK, Style
from casl_bench.records.comparison import Comparison
from casl_bench.records.record import RunRecord
from casl_bench.reports.grouping import RowKey

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
    """EPR+ of every method with both intervals, best on top.

    Args:
        found: the comparison.
        where: the data set, in words.
        styles: of all rows of the page.
        figures: to draw with.
    """
    series = {}
    with figures.axes(5.2, 1.0 + 0.36 * len(found.standings)) as axes:
        for place, standing in enumerate(found.standings):
            style = styles[(False, standing.method, "")]
            for part, (m, width) in enumerate(
                ((standing.epr_plus, 1.4), (standing.epr_plus_here, 4.0))
            ):
                if m.low is not None and m.high is not None:
                    (bar,) = axes.plot([m.low, m.high], [place, place], color=style.colour,
                                       linewidth=width, alpha=0.55 if part else 1.0,
                                       solid_capstyle="butt")  # fmt: skip
                    bar.set_gid(gid(style.series, part))
            if standing.epr_plus.value is not None:
                (mark,) = axes.plot([standing.epr_plus.value], [place], color=style.colour,
                                    marker=style.marker, markersize=7)  # fmt: skip
                mark.set_gid(gid(style.series, 2))
            series[style.series] = standing.method
        axes.axvline(1, color=INK, linewidth=0.6, linestyle=":")
        # The scale on which methods are averaged and told apart: sign(x) log(1 + |x|).
        axes.set_xscale("function", functions=(_signed_log, _signed_exp))
        axes.set_xticks(_ticks(found))
        axes.set_xticks([], minor=True)
        axes.set_yticks(range(len(found.standings)), [s.method for s in found.standings])
        axes.set_ylim(len(found.standings) - 0.5, -0.5)
        axes.set_xlabel("EPR+ (1 is chance)")
        title = f"{where}: EPR+ at equal effect; thin: other concepts, thick: these concepts"
        return figures.keep(axes, f"{where}-standings", title, series)


def _signed_log(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)))


def _signed_exp(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(x) * np.expm1(np.abs(x)))


def _ticks(found: Comparison) -> list[int]:
    ends = [e for s in found.standings for e in (s.epr_plus.low, s.epr_plus.high) if e is not None]
    low, high = min([0.0, *ends]), max([1.0, *ends])
    return [t for t in (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300) if low <= t <= high]


def probe_chart(
    records: Sequence[RunRecord], where: str, method: str, figures: Figures
) -> Drawing | None:
    """Accuracy by number of features, mean over concepts; the band holds all concepts.

    Args:
        records: of the kind "probe", of one method, one a concept.
        where: the data set.
        method: whose latents.
        figures: to draw with.
    """
    ks = sorted(
        {int(part[1:]) for r in records for name in r.measurements
         for part in name.split(".")[1:2] if part[:1] == "k" and part[1:].isdigit()}
    )  # fmt: skip
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
