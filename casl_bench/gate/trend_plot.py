"""The accepted runs as a picture: EPR+ of each method over the runs, steps marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from casl_bench.core.files import make_folder
from casl_bench.gate.history import Trend


def write_trend_plot(trends: Sequence[Trend], path: Path) -> None:
    """One panel a (data set, method): EPR+ over the runs, a dashed line at each step.

    Args:
        trends: at least one.
        path: to write; the ending says whether it is a PNG, an SVG or a PDF.
    """
    # Here, since the command line is to answer at once; without pyplot, which holds global state.
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(trends))
    rows = -(-len(trends) // columns)
    # The same history gives the same bytes.
    with rc_context({"svg.hashsalt": "casl_bench", "svg.fonttype": "path"}):
        figure = Figure(figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, trend in zip(panels, trends, strict=False):
            runs = range(1, len(trend.precision) + 1)
            panel.plot(runs, trend.precision, marker="o", color="#0072B2")
            for step in trend.steps:
                panel.axvline(step + 0.5, linestyle="--", color="#D55E00")
            panel.set_title(trend.name.replace("$", r"\$"), fontsize=9)
            panel.set_xlabel("accepted run")
            panel.set_ylabel("EPR+")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        for panel in panels[len(trends) :]:
            panel.set_axis_off()
        make_folder(path.parent)
        quiet = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=quiet)
