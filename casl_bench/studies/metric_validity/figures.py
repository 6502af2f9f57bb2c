"""Figures of the study, each with the command that made it; equal records give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from casl_bench.core.content_hash import hash_bytes
from casl_bench.studies.metric_validity.graded_edits import FAMILIES
from casl_bench.studies.metric_validity.ranking import (
    COLUMNS,
    DAMAGE,
    KNOWN_PRECISION,
    classifiers,
    ranking,
)
from casl_bench.studies.metric_validity.responses import Point, response
from casl_bench.studies.metric_validity.study_records import StudyRecords

MADE_FROM = "made-from"
"""Field of a PNG that holds the hash of the records."""
DPI = 90
COLOURS = 160
PANELS = ("epr_signed", "epr_raw", "clip_similarity", "perceptual_guard", "identity_guard")
"""Metrics of the second figure."""


def ranking_figure(records: StudyRecords) -> bytes:
    """PNG: metrics by families, rank correlation with the truth within a concept."""
    classifier = classifiers(records)[0]
    metrics = [m.name for m in records.header.metrics]
    found = {
        (m, c): ranking(records, m, classifier, families).within.value
        for m in metrics
        for c, families in COLUMNS.items()
    }
    values = np.array([[_or_nan(found[m, c]) for c in COLUMNS] for m in metrics])
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(10, 0.34 * len(metrics) + 1.9), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(COLUMNS)), [_words(c) for c in COLUMNS], rotation=30, ha="right")
        axes.set_yticks(range(len(metrics)), metrics)
        for i, j in np.ndindex(*values.shape):
            known = np.isfinite(values[i, j])
            dark = known and abs(values[i, j]) > 0.6
            axes.text(
                j, i, f"{values[i, j]:.2f}" if known else "–", ha="center", va="center",
                fontsize=8, color="white" if dark else "black",
            )  # fmt: skip
        axes.set_title(f"rank correlation with what is known, mean over concepts ({classifier})")
        return _png(figure, records)


def response_figure(records: StudyRecords) -> bytes:
    """PNG: a few metrics against the known precision, and against damage."""
    names = {m.name for m in records.header.metrics}
    shown = [name for name in PANELS if name in names]
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(2.7 * len(shown), 6.4), dpi=DPI, layout="constrained")
        grid = figure.subplots(2, len(shown), squeeze=False)
        for column, metric in enumerate(shown):
            for axes, families in zip(grid[:, column], (KNOWN_PRECISION, DAMAGE), strict=True):
                _panel(axes, records, metric, families)
            grid[0, column].set_title(metric, fontsize=10)
        for row, what in zip(grid, ("known precision", "damage / largest"), strict=True):
            row[0].legend(fontsize=7)
            row[0].set_ylabel("median over concepts", fontsize=8)
            for axes in row:
                axes.set_xlabel(what, fontsize=8)
        return _png(figure, records)


def _panel(axes: Axes, records: StudyRecords, metric: str, families: Sequence[str]) -> None:
    for family in families:
        points = response(records, metric, classifiers(records)[0], family)
        known = sorted((_place(p, family, points), p.value) for p in points if p.value is not None)
        # One precision at several strengths is no curve.
        line = "o" if family == "unmatched_strength" else "o-"
        places, values = [x for x, _ in known], [y for _, y in known]
        axes.plot(places, values, line, markersize=3, linewidth=1, label=_words(family))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _place(point: Point, family: str, points: Sequence[Point]) -> float:
    if FAMILIES[family].truth == "precision":
        return point.precision
    return point.level / max(p.level for p in points)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _png(figure: Figure, records: StudyRecords) -> bytes:
    """Reduced to a palette, which halves the file and costs nothing that the eye sees."""
    figure.supxlabel(f"made by: {records.header.command}", fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    info = PngImagePlugin.PngInfo()
    info.add_text(MADE_FROM, hash_bytes(records.to_jsonl().encode()))
    out = io.BytesIO()
    drawn.quantize(COLOURS).save(out, "PNG", pnginfo=info, optimize=True)
    return out.getvalue()
