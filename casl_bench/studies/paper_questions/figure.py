"""One picture of dose, ablation and number of latents; equal records give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from casl_bench.studies.paper_questions import answers
from casl_bench.studies.paper_questions.answers import Evidence
from casl_bench.studies.paper_questions.names import MAP, STEER
from casl_bench.studies.paper_questions.over_concepts import Over, from_signed_log, mean_over

DPI = 90
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
"""Of Okabe and Ito's palette: told apart by the colour-blind."""


def draw_figure(evidence: Evidence) -> bytes:
    """PNG of three panels."""
    ks = evidence.study.header.ks
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(11, 3.4), dpi=DPI, layout="constrained")
        dose, ablation, size = figure.subplots(1, 3)
        for method, colour, marker in ((STEER, BLUE, "o"), (MAP, ORANGE, "s")):
            found = answers.dose_response(evidence, method)
            _line(dose, [d.strength for d in found], [d.effect for d in found], colour, marker,
                  method)  # fmt: skip
        _labels(dose, "dose and response", "strength", "effect / perfect edit's")
        for kind, colour, marker, label in (
            ("top", BLUE, "o", "without the top k"), ("alike", GREY, "s", "without k others"),
        ):  # fmt: skip
            left = [answers.left_of(evidence, kind, k) for k in ks]  # type: ignore[arg-type]
            _line(ablation, ks, left, colour, marker, label)
        ablation.set_xscale("log", base=2)
        _labels(ablation, "CASL's edit, latents taken away", "k", "share of the effect left")
        precise = [
            from_signed_log(
                mean_over(list(answers.precision(evidence.variants("size", "top", k)).values()))
            )
            for k in ks
        ]
        _line(size, ks, precise, BLUE, "o", STEER)
        size.set_xscale("log", base=2)
        _labels(size, "k latents at equal effect", "k", "EPR+")
        figure.supxlabel(f"made by: {evidence.study.header.command}", fontsize=7)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    drawn.quantize(64).save(out, "PNG", optimize=True)
    return out.getvalue()


def _line(
    axes: Axes, places: Sequence[float], found: Sequence[Over], colour: str, marker: str, label: str
) -> None:
    known = [(x, o.value) for x, o in zip(places, found, strict=True) if o.value is not None]
    axes.plot(
        [x for x, _ in known], [y for _, y in known], marker=marker, color=colour, label=label,
        markersize=4, linewidth=1.2,
    )  # fmt: skip
    banded = [
        (x, o.low, o.high)
        for x, o in zip(places, found, strict=True)
        if o.low is not None and o.high is not None
    ]
    if banded:
        xs, low, high = np.array(banded).T
        axes.fill_between(xs, low, high, color=colour, alpha=0.15)


def _labels(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
