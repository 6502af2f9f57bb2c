"""Tables of the edits: by method, by classifier, by concept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from casl_bench.report.grouping import (
    Group,
    RowKey,
    mean_measurement,
    over_concepts,
    row_name,
    section,
    shown_largest,
    shown_mean,
)
from casl_bench.report.markdown import DASH, Footnotes, escape, measured, table


@dataclass(frozen=True)
class Column:
    """A column of the edit tables: a measurement, its heading and decimals."""

    measurement: str
    heading: str
    digits: int = 2


COLUMNS = (
    Column("epr_plus", "EPR+ ↑"),
    Column("epr_floored", "EPR ≥ ↑"),
    Column("epr_raw", "EPR raw ↑"),
    Column("epr_over_random", "÷ random ↑"),
    Column("worst_attribute_epr", "EPR, worst attribute ↑"),
    Column("factor_epr", "EPR, factors ↑"),
    Column("flip_precision", "other flips a flip ↓"),
    Column("signed_target_change", "target change (σ) ↑"),
    Column("flip_rate", "flip rate ↑"),
    Column("wrong_way_rate", "wrong way ↓"),
    Column("mean_collateral", "collateral (σ) ↓"),
    Column("clip_similarity", "CLIP direction ↑"),
    Column("perceptual", "perceptual ↓", 3),
    Column("identity", "identity ↑", 3),
    Column("pixel_locality", "locality ↑"),
    Column("precision_area", "area ↑"),
)
PER_CONCEPT = (
    "epr_plus",
    "epr_floored",
    "epr_raw",
    "epr_over_random",
    "signed_target_change",
    "flip_rate",
    "wrong_way_rate",
)

PER_CLASSIFIER = ("epr_plus", "epr_floored", "signed_target_change", "flip_rate")

HEADLINE = "epr_floored"
"""Across data sets this one is shown of each of them too."""


def shown_columns(group: Group) -> list[Column]:
    """Those that any record has: what was not measured when a record was made is no column."""
    there = {
        name
        for record in group.of_kind("edit")
        for name, m in record.measurements.items()
        if m.status != "missing"
    }
    return [column for column in COLUMNS if column.measurement in there]


def edit_section(group: Group) -> str:
    """One row a method: means over concepts."""
    if not group.edits:
        return ""
    notes = Footnotes()
    datasets = list(group.datasets) if group.across else []
    columns = shown_columns(group)
    headings = ["method", "supervision"]
    for column in columns:
        headings.append(column.heading)
        if column.measurement == HEADLINE:
            headings += [f"{column.heading}, {escape(dataset)}" for dataset in datasets]
    rows = []
    for key in group.edits:
        row = [row_name(key), group.supervision(key)]
        for column in columns:
            row.append(_mean(group, key, column, notes))
            if column.measurement == HEADLINE:
                row += [_mean(group, key, column, notes, dataset) for dataset in datasets]
        parameters = group.values(key, lambda r: r.cost.parameters)
        calls = group.values(key, lambda r: r.cost.unet_calls)
        row.append(over_concepts(parameters, group, shown_largest(0), notes))
        row.append(over_concepts(calls, group, shown_mean(0), notes))
        rows.append([*row, f"{len(group.done(key))}/{len(group.concepts)}"])
    headings += ["parameters", "U-Net calls", "cells"]
    over = f"concepts ({len(group.concepts)})"
    if group.across:
        over = (
            f"{len(group.concepts)} concepts of {len(datasets)} data sets, each concept with the "
            "same weight,"
        )
    return section(
        "Edits, overall" if group.across else "Edits",
        f"Means over {over} at the strength chosen on validation images; "
        "controls below. In brackets 95 % intervals, t over concepts. "
        "U-Net calls are those of a concept's fit, in images.",
        notes.under(table(headings, rows, text_columns=2)),
    )


def _mean(
    group: Group, key: RowKey, column: Column, notes: Footnotes, dataset: str | None = None
) -> str:
    return mean_measurement(group, key, column.measurement, column.digits, notes, dataset)


def classifier_section(group: Group) -> str:
    """What the other classifiers say: a ranking that they do not share is the scorer's."""
    names = {n for r in group.of_kind("edit") for n in r.measurements}
    others = sorted({n.split("@", 1)[1] for n in names if "@" in n})
    if not others:
        return ""
    notes = Footnotes()
    headings, columns = ["method"], []
    for column in (c for c in shown_columns(group) if c.measurement in PER_CLASSIFIER):
        headings += [f"{column.heading}", *(f"{column.heading}, {escape(o)}" for o in others)]
        columns += [column, *(replace(column, measurement=f"{column.measurement}@{o}")
                              for o in others)]  # fmt: skip
    rows = [[row_name(key), *(_mean(group, key, c, notes) for c in columns)] for key in group.edits]
    return section(
        "Edits, by classifier",
        "The first of each is the primary classifier's.",
        notes.under(table(headings, rows)),
    )


def concept_section(group: Group) -> str:
    """One row a concept and method, with intervals."""
    if not group.edits:
        return ""
    notes = Footnotes()
    columns = [c for c in shown_columns(group) if c.measurement in PER_CONCEPT]
    rows = []
    flagged = any(r.flags for r in group.of_kind("edit"))
    for concept in group.concepts:
        for key, by_concept in group.edits.items():
            record = by_concept.get(concept)
            if record is None or record.status != "done":
                continue
            found = [group.measurement(key, concept, c.measurement) for c in columns]
            shown = (
                measured(m, notes, digits=c.digits) if m is not None else DASH
                for m, c in zip(found, columns, strict=True)
            )
            strength = "" if record.strength is None else f"{record.strength:g}"
            row = [escape(concept), row_name(key), strength]
            # Images were scored, also where the first column has no number of them.
            seen = [m.n for m in found if m is not None]
            row.append(str(max(seen)) if seen else "")
            row += shown
            rows.append(row + ([escape(", ".join(record.flags))] if flagged else []))
    headings = ["concept", "method", "strength", "n", *(c.heading for c in columns)]
    return section(
        "Edits, by concept",
        "In brackets 95 % intervals, images resampled.",
        notes.under(table(headings + (["flags"] if flagged else []), rows, text_columns=2)),
    )
