"""The report of the SAE track: tables, sparsity against each metric, a page for every dictionary.

A dictionary's page shows the latents that are matched to attributes: the images that activate them
most, where they fire, and what moves when they are turned up.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from casl_bench.core.text import visible
from casl_bench.metrics.dictionaries import SAE_METRICS
from casl_bench.report.html.figures import INK, Drawing, Figures, slug
from casl_bench.report.html.from_markdown import to_html, without_heading
from casl_bench.report.html.pages import INDEX, Page, write_folder
from casl_bench.report.html.sections import Section
from casl_bench.report.markdown import number
from casl_bench.report.sae_tables import SaeRow, rows_of, sae_sections, title
from casl_bench.results.sae_record import CELLS, LatentPage, SaeRecord

PARETO = (
    "pair_score", "probe_labels", "disentangle", "steering", "explained_variance", "absorption",
    "monosemanticity",
)  # fmt: skip
"""Metrics that are plotted against sparsity."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SHADES = " ·:+*#"


def write_sae_report(run: Path, records: Sequence[SaeRecord], out: Path) -> Path:
    """Write the report of a run folder's records; returns the page to open.

    Raises UsageError if the folder holds other things or cannot be written.
    """

    def pages(folder: Path) -> list[Page]:
        figures = Figures(folder)
        heading, about = without_heading(title(records))
        tables = [
            Section(f"table-{i}", name, to_html(body))
            for i, (name, body) in enumerate(sae_sections(records))
        ]
        rows = rows_of(records)
        plots = [pareto(rows, metric, figures) for metric in PARETO]
        drawn = [plot for plot in plots if plot is not None]
        front = Section("pareto", "Sparsity against each metric", Markup(""), drawn)
        index = Page(INDEX, heading, to_html(about), (), [tables[0], front, *tables[1:]])
        return [index, *(_latents_page(run, r, folder) for r in records if r.latents)]

    return write_folder(out, pages)


def pareto(rows: Sequence[SaeRow], metric: str, figures: Figures) -> Drawing | None:
    """Measured L0 against a metric, all data sets, seeds and ranges together; the front is lined.

    None where fewer than two rows have both numbers.
    """
    info = SAE_METRICS[metric]
    points = []
    for row in rows:
        x, y = row.number("l0").value, row.number(metric).value
        if x is not None and y is not None and x > 0:
            points.append((row, x, y))
    if len(points) < 2:
        return None
    names = list(dict.fromkeys(row.variant[0] for row, _, _ in points))
    with figures.axes(5.2, 3.6) as axes:
        for place, name in enumerate(names):
            own = sorted((x, y) for row, x, y in points if row.variant[0] == name)
            control = next(row.control for row, _, _ in points if row.variant[0] == name)
            axes.plot(
                *zip(*own, strict=True),
                color="#888888" if control else _COLOURS[place % len(_COLOURS)],
                marker=_MARKERS[place % len(_MARKERS)],
                linestyle="none" if control else ":",
                label=visible(Path(name).name if Path(name).is_absolute() else name),
            )
        front = front_of([(x, y) for row, x, y in points if not row.control],
                         info.better == "higher")  # fmt: skip
        if len(front) > 1:
            axes.plot(*zip(*front, strict=True), color=INK, linewidth=0.8)
        axes.set_xscale("log", base=2)
        low, high = min(x for _, x, _ in points), max(x for _, x, _ in points)
        ticks = [2**n for n in range(-4, 17) if low / 2 <= 2**n <= high * 2]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlabel="L0 (active latents per vector)", ylabel=info.title)
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        label = f"{info.title} by sparsity; line: no rival is better at so few latents"
        return figures.keep(axes, f"pareto-{metric}", label, {})


def front_of(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """The points (sparsity, metric) that no other beats in both: the least x first."""
    front: list[tuple[float, float]] = []
    sign = 1 if higher else -1
    for x, y in sorted(points, key=lambda p: (p[0], -sign * p[1])):
        if not front or sign * y > sign * front[-1][1]:
            front.append((x, y))
    return front


def _latents_page(run: Path, record: SaeRecord, folder: Path) -> Page:
    name = record.id.name
    sections = []
    for latent in record.latents:
        sections.append(
            Section(
                f"latent-{latent.latent}",
                f"Latent {latent.latent}: {', '.join(latent.attributes)}",
                _latent(run, latent, folder),
            )
        )
    about = Markup(
        "<p>{}: {} latents on {}, {}. Shown are those matched to an attribute on training "
        "images. First row of pictures: the test images that activate the latent most; then images "
        "without the attribute, as they are and with the latent turned up.</p>"
    ).format(
        visible(record.title), record.d_sae, visible(record.id.dataset), visible(record.id.site)
    )
    return Page(f"{slug(name)}.html", visible(name), about, (), sections)


def _latent(run: Path, latent: LatentPage, folder: Path) -> Markup:
    parts = []
    if latent.pictures is not None and (run / CELLS / latent.pictures).is_file():
        (folder / "latents").mkdir(exist_ok=True)
        shutil.copyfile(run / CELLS / latent.pictures, folder / "latents" / latent.pictures)
        parts.append(
            Markup('<p><img src="latents/{}" alt="images of latent {}"></p>').format(
                latent.pictures, latent.latent
            )
        )
    if latent.activity:
        parts.append(
            Markup("<p>Where it fires in the first of these images:</p><pre>{}</pre>").format(
                place_map(latent.activity[0])
            )
        )
    if latent.purity is not None:
        parts.append(
            Markup("<p>Largest share of one attribute's value among its top images: {}.</p>")
            .format(number(latent.purity))
        )  # fmt: skip
    if latent.moves:
        rows = sorted(latent.moves.items(), key=lambda item: -abs(item[1]))
        moved = ", ".join(f"{visible(a)} {number(v)}" for a, v in rows)
        parts.append(
            Markup("<p>Mean change of attributes when it is turned up, in σ: {}.</p>").format(moved)
        )
    return Markup("").join(parts)


def place_map(activity: Sequence[float]) -> str:
    """A square of characters, darker where the latent is more active, of its P positions."""
    side = max(1, round(len(activity) ** 0.5))
    most = max((abs(a) for a in activity), default=0.0)
    shades = [
        _SHADES[min(len(_SHADES) - 1, int(abs(a) / most * len(_SHADES)))] if most else " "
        for a in activity
    ]
    return "\n".join(" ".join(shades[i : i + side]) for i in range(0, len(shades), side))
