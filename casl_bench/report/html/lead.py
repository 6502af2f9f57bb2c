"""The first screen of a page: what was measured, who is first, and the files to take along."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from casl_bench.metrics.epr_plus import signed_log
from casl_bench.report.columns import EPR_PLUS, PRECISE_EDITS, Placed, standing_columns
from casl_bench.report.exports import csv_cell
from casl_bench.report.grouping import Group, Number, Row, RowKey
from casl_bench.report.html.figures import Style
from casl_bench.report.markdown import DASH, Footnotes, number
from casl_bench.report.run_report import as_text, who_is_first
from casl_bench.report.tables import TRIAL, effect_in_words
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import write_jsonl

CSV, JSON = "numbers.csv", "numbers.jsonl"


@dataclass(frozen=True)
class Tile:
    """One cell: its text, how dark it is in [0, 1], and why it is empty."""

    text: str
    shade: float
    why: str = ""


@dataclass(frozen=True)
class ConceptMap:
    """Methods, and for each concept a tile per method."""

    caption: str
    methods: tuple[str, ...]
    rows: Sequence[tuple[str, Sequence[Tile]]]


@dataclass(frozen=True)
class Lead:
    """Rows are rank, method and headline, as text; empty where nothing was compared.

    `is_doubtful` where what is known of the records must be read before any number.
    """

    first: str
    about: str
    is_doubtful: bool = False
    heads: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = field(default=())
    map: ConceptMap | None = None


_RENDERED = " Rendered images with known truth, not photographs."


def lead_of(group: Group, styles: Mapping[RowKey, Style]) -> Lead:
    """Of one data set, or of several together, which have no map."""
    names = f"{len(group.datasets)} data sets" if group.across else group.first.dataset
    found, tiles = group.comparison, concept_map(group, styles)
    doubtful = bool(group.mixed) and not group.across
    if group.is_trial:
        return Lead(f"{names}: tried out", TRIAL)
    if found is None or not found.standings:
        about = "Not every method has run every concept."
        return Lead(f"{names}: nothing was compared", about, doubtful, map=tiles)
    wanted = ("rank", "method", "epr_plus" if found.headline is None else "precise_edits")
    columns = [c for c in standing_columns(found) if c.name in wanted]
    notes = Footnotes()
    placed = [Placed(Row(group, RowKey(False, s.method)), s) for s in found.standings]
    of = f" of {', '.join(group.datasets)}" if group.across else ""
    where = (
        f"at {effect_in_words(found.level)}"
        if found.headline is None
        else "each method at the strength that is best on validation images"
    )
    about = (
        f"{len(found.standings)} methods on {len(found.concepts)} concepts{of}, "
        f"n = {found.standings[0].epr_plus.n:,} test images, {where}. In brackets: 95 % intervals "
        "for other images and concepts like these."
    )
    return Lead(
        f"{names}: {who_is_first(found)}",
        about + (_RENDERED if group.first.domain_kind == "synth" else ""),
        doubtful,
        tuple(column.header for column in columns),
        [tuple(as_text(column, item, notes) for column in columns) for item in placed],
        tiles,
    )


def concept_map(group: Group, styles: Mapping[RowKey, Style]) -> ConceptMap | None:
    """What ranks, of every concept and method, darker where it is larger; None without numbers.

    That is precise edits, and EPR+ in records that have none.
    """
    keys = [key for key in styles if key in group.edits and not key.control]
    known = any(PRECISE_EDITS.name in r.measurements for r in group.of_kind("edit"))
    column = PRECISE_EDITS if known else EPR_PLUS
    caption = f"{column.label} by concept, the stronger the colour the more precise"
    found = {
        (concept, key): column.of(record)
        for key in keys
        for concept, record in group.edits[key].items()
    }
    values = [n.value for n in found.values() if isinstance(n, Number) and n.value is not None]
    if not values:
        return None
    largest = max(max(signed_log(v) for v in values), 1e-9)
    rows = [
        (concept, [_tile(found.get((concept, key)), largest, 2 if known else 1) for key in keys])
        for concept in group.concepts
    ]
    return ConceptMap(caption, tuple(key.name for key in keys), rows)


def _tile(found: Number | str | None, largest: float, digits: int) -> Tile:
    if not isinstance(found, Number) or found.value is None:
        return Tile(DASH, 0.0, getattr(found, "reason", "") or "no finished cell")
    return Tile(number(found.value, digits), max(signed_log(found.value), 0.0) / largest)


# Files to take along.


def write_downloads(records: Sequence[RunRecord], folder: Path) -> None:
    """All numbers as CSV, a line per measurement, and as JSON, a record per line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["dataset", "suite", "seed", "kind", "method", "control", "matched_to", "concept", "fit",
         "strength", "measurement", "status", "value", "low", "high", "n", "unit"]
    )  # fmt: skip
    for r in records:
        place = [
            r.dataset, r.suite.name, r.seed, r.kind, r.method, r.control, r.beside, r.concept,
            r.fit_seed, r.strength,
        ]  # fmt: skip
        for name, m in sorted(r.measurements.items()):
            row = [*place, name, m.status, m.value, m.low, m.high, m.n, m.unit]
            writer.writerow([csv_cell(value) for value in row])
    (folder / CSV).write_text(out.getvalue(), encoding="utf-8")
    write_jsonl(folder / JSON, records)
