"""Runs in Python: per-image scores and tables as DataFrames, and curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from casl_bench.analysis.analyse import analyse_cells, group_cells, read_numbers
from casl_bench.core.errors import InputError, UsageError, unknown_name
from casl_bench.core.registry import discover
from casl_bench.metrics.edit_scores import PER_IMAGE
from casl_bench.metrics.metric import METRICS, EditMetric
from casl_bench.report.grouping import Group, parts_of
from casl_bench.report.tables import render_tables
from casl_bench.results.published_scores import ENDING, read_published
from casl_bench.results.record import ALL, Measurement, ReferenceScales, RunRecord
from casl_bench.results.stored_cells import StoredCell, read_cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class Run:
    """One or several finished runs, analysed together.

    Attributes:
        paths: what was read.
        records: the numbers, a record per cell and comparison (`casl_bench.results.record`).
        cells: what they were computed from; empty where only numbers were read.
    """

    paths: tuple[Path, ...]
    records: tuple[RunRecord, ...] = field(repr=False)
    cells: tuple[StoredCell, ...] = field(default=(), repr=False)

    @property
    def failed(self) -> pd.DataFrame:
        """A row per cell without a result: data set, method, concept, and why."""
        rows = [
            [r.dataset, r.method, r.concept, r.fit_seed, r.error.message]
            for r in self.records
            if r.status == "failed" and r.error is not None
        ]
        return pd.DataFrame(rows, columns=["dataset", "method", "concept", "fit", "reason"])

    @property
    def markdown(self) -> str:
        """All tables, as `casl-bench table` prints them."""
        return render_tables(self.records)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per method and data set, best first: ranks, the headline, and means over concepts.

        `NAME_low` and `NAME_high` are the ends of a 95 % interval. The data set is "all" where
        several were run. A suite for trying out has no numbers: how many cells are done and failed.
        """
        rows: list[dict[str, Any]] = []
        for part in parts_of(self.records):
            for group in (*([part.overall] if part.overall else []), *part.groups):
                rows += _tried(group) if group.is_trial else _standings(group)
        found = pd.DataFrame(rows)
        return found.astype({name: float for name in found if found[name].isna().all()})

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row per image, strength, classifier, method and concept: the logits and what they say.

        Changes are in standard deviations of the logit over training images, edit less
        reconstruction. `reported` marks the strength that the tables are about; `source/NAME`,
        `base/NAME` and `edit/NAME` are the logits of attribute NAME.

        Raises:
            InputError: if only numbers were read, which have no images.
        """
        if not self.cells:
            raise InputError(
                "these are numbers without per-image scores",
                where=", ".join(map(str, self.paths)),
                hint=f"give a run folder or a file that ends with {ENDING}",
            )
        parts = [
            frame
            for dataset in group_cells(self.cells)
            for cell in dataset.edits
            for frame in _scores_of(cell, dataset.scales)
        ]
        return pd.concat(parts, ignore_index=True)

    def _repr_html_(self) -> str:
        """In a notebook: the table."""
        return str(self.table.to_html(index=False, float_format="{:.3g}".format))


def load_run(path: str | Path) -> Run:
    """A run folder, a file of published scores (`.scores.npz`) or of numbers (`.jsonl`, `.gz`).

    Raises:
        UsageError: if there is nothing of that kind.
        InvalidBenchmarkError: if something stored is damaged.
    """
    return analyse(path)


def analyse(paths: Paths, metrics: Sequence[EditMetric] | None = None) -> Run:
    """Compute all numbers anew from the stored scores of one or several runs, in seconds.

    Every method that is complete in what is given is compared; of a cell that lies in several
    places the first one counts.

    Args:
        paths: as of `load_run`.
        metrics: of per-image scores; by default all that are registered.

    Raises:
        UsageError: if there is nothing of that kind.
        InvalidBenchmarkError: if something stored is damaged.
    """
    discover("casl_bench.metrics", METRICS)
    places = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    for place in places:
        if not place.exists():
            raise UsageError("no such run", where=str(place), hint="give a run folder or a file")
    scored = [p for p in places if (p / "cells").is_dir() or p.name.endswith(ENDING)]
    cells = [c for p in scored for c in (read_published(p) if p.is_file() else read_cells(p))]
    numbers = analyse_cells(cells, metrics) if cells else []
    if others := [p for p in places if p not in scored]:
        numbers += read_numbers(others)
    if not numbers:
        where = ", ".join(map(str, places))
        raise UsageError("no records", where=where, hint="give a run folder or a file of numbers")
    return Run(tuple(places), tuple(numbers), tuple(cells))


def _name(group: Group) -> str:
    return ALL if group.across else group.first.dataset


def _tried(group: Group) -> list[dict[str, Any]]:
    """How far a suite for trying out came."""
    return [
        {
            "dataset": _name(group),
            "method": key.name,
            "control": key.control,
            "done": sum(r.status == "done" for r in cells.values()),
            "failed": sum(r.status == "failed" for r in cells.values()),
        }
        for key, cells in group.edits.items()
    ]


def _standings(group: Group) -> list[dict[str, Any]]:
    """Methods that were compared, best first, with means over concepts of what else was measured.

    A mean over fewer concepts than there are would be another quantity: there is none.
    """
    found = group.comparison
    rows = []
    for standing in found.standings if found is not None else ():
        row: dict[str, Any] = {"dataset": _name(group), "suite": group.first.suite.name}
        for name in type(standing).model_fields:
            value = getattr(standing, name)
            row |= _flat(name, value) if isinstance(value, Measurement) else {name: value}
        cells = next(
            (own for key, own in group.edits.items()
             if not key.control and key.method == standing.method), {},
        )  # fmt: skip
        done = [r for r in cells.values() if r.status == "done"]
        for name in sorted({n for r in done for n in r.measurements if "@" not in n}):
            values = [m.value for r in done if (m := r.measurements.get(name)) is not None]
            if name not in row and len(values) == len(group.concepts) and None not in values:
                row[name] = float(np.mean([v for v in values if v is not None]))
        rows.append(row)
    return rows


def _flat(name: str, measured: Measurement) -> dict[str, float | None]:
    return {name: measured.value, f"{name}_low": measured.low, f"{name}_high": measured.high}


def _scores_of(cell: StoredCell, scales: ReferenceScales) -> Iterator[pd.DataFrame]:
    record, table = cell.record, cell.scores
    assert table is not None and record.attribute is not None
    target = table.attributes.index(record.attribute)
    others = [k for k in range(len(table.attributes)) if k != target]
    for k, classifier in enumerate(table.classifiers):
        if classifier not in record.judges:
            continue
        unit = np.array(scales.spreads[classifier])
        source, base = table.source_logits[k], table.reconstruction_logits[k]
        for s, strength in enumerate(table.strengths):
            edit = table.edit_logits[k, s]
            change = (edit - base) / unit
            columns: dict[str, Any] = {
                "dataset": record.dataset,
                "concept": record.concept,
                "attribute": record.attribute,
                "method": record.method,
                "control": record.control,
                "matched_to": record.beside,
                "fit": record.fit_seed,
                "classifier": classifier,
                "strength": strength,
                "reported": strength == record.strength,
                "image": table.image_ids,
                "target_change": change[:, target],
                "other_change": np.abs(change[:, others]).mean(1) if others else np.nan,
                "flipped": (base[:, target] <= 0) & (edit[:, target] > 0),
            }
            if classifier == record.judges[0]:
                known = {name: getattr(table, name) for name in PER_IMAGE}
                columns |= {name: v[s] for name, v in known.items() if v is not None}
            for side, logits in (("source", source), ("base", base), ("edit", edit)):
                columns |= {f"{side}/{a}": logits[:, j] for j, a in enumerate(table.attributes)}
            yield pd.DataFrame(columns)


def plot_curves(
    run: Run,
    metric: str = "signed_target_change",
    concepts: str | Sequence[str] | None = None,
) -> Figure:
    """A metric against strength on validation images: a panel per concept, a line per method.

    Args:
        run: as from `load_run` or `evaluate`.
        metric: name of a measurement, such as "signed_target_change" or "flip_rate".
        concepts: one or several; by default all of them.

    Raises:
        UsageError: if the run has no such concept, or no curve of this metric.
    """
    # Not pyplot: it would keep the figure for itself, and open a window where it can.
    from matplotlib.figure import Figure

    lines: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    edits = [r for r in run.records if r.kind == "edit" and not r.control and not r.fit_seed]
    known = sorted({r.concept or "" for r in edits})
    concepts = [concepts] if isinstance(concepts, str) else concepts
    for name in concepts or ():
        if name not in known:
            raise unknown_name("concept", name, known)
    metrics = {name for r in edits for point in r.curve for name in point.measurements}
    if not metrics:
        raise UsageError("the run has no curves", where=", ".join(map(str, run.paths)))
    if metric not in metrics:
        raise unknown_name("curve", metric, [n for n in metrics if "@" not in n])
    for r in edits:
        found = [
            (point.strength, value)
            for point in r.curve
            if (m := point.measurements.get(metric)) and (value := m.value) is not None
        ]
        if found and (concepts is None or r.concept in concepts):
            lines.setdefault((r.dataset, r.concept or ""), {})[r.method or ""] = sorted(found)
    columns = min(len(lines), 4) or 1
    rows = -(-len(lines) // columns) or 1
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    several = len({dataset for dataset, _ in lines}) > 1
    for axis, (place, by_method) in zip(axes, lines.items(), strict=False):
        _draw(axis, by_method)
        axis.set_title(" / ".join(place) if several else place[1], fontsize="medium")
    for axis in axes[len(lines) :]:
        axis.set_visible(False)
    title = METRICS.create(metric).info.title if metric in METRICS else metric
    figure.supxlabel("strength")
    figure.supylabel(title)
    if lines:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw(axis: Any, by_method: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for method, points in sorted(by_method.items()):
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=method)
    axis.axhline(0, color="grey", linewidth=0.6)
