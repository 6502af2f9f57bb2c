"""Records → markdown, and nothing but records: the same records give the same bytes.

Records are grouped by what makes them comparable (world, dataset, suite, seed). A number that is
not there is a dash with its reason, and a mean over concepts is given only where every concept has
its number: a mean over fewer is another quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from casl_bench.records.record import Measurement, RunRecord
from casl_bench.reports.markdown import DASH, Footnotes, escape, measured, number, table
from casl_bench.reports.model_tables import (
    probe_section,
    reconstruction_section,
    sae_section,
    scorer_section,
)


@dataclass(frozen=True)
class Column:
    """A column of the edit tables: a measurement, its heading and decimals."""

    measurement: str
    heading: str
    digits: int = 2


COLUMNS = (
    Column("epr_floored", "EPR ≥ ↑"),
    Column("epr_raw", "EPR raw ↑"),
    Column("epr_over_random", "÷ random ↑"),
    Column("signed_target_change", "target change (σ) ↑"),
    Column("flip_rate", "flip rate ↑"),
    Column("wrong_way_rate", "wrong way ↓"),
    Column("mean_collateral", "collateral (σ) ↓"),
    Column("clip_similarity", "CLIP direction ↑"),
    Column("perceptual", "perceptual ↓", 3),
    Column("identity", "identity ↑", 3),
)
PER_CONCEPT = (
    "epr_floored",
    "epr_raw",
    "epr_over_random",
    "signed_target_change",
    "flip_rate",
    "wrong_way_rate",
)

PER_CLASSIFIER = ("epr_floored", "signed_target_change", "flip_rate")

RowKey = tuple[bool, str, str]
"""(control, method, beside): also the order of rows, controls last."""


@dataclass
class Group:
    """Comparable records.

    Attributes:
        records: all of them, in an order that does not depend on how they were given.
        edits: row → concept → record, of the kind "edit".
        concepts: every concept that any of them edits.
    """

    records: list[RunRecord]
    edits: dict[RowKey, dict[str, RunRecord]] = field(default_factory=dict)
    concepts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Sort records into rows and concepts."""
        self.records.sort(key=lambda r: (r.kind, r.method or "", r.beside or "", r.concept or ""))
        for record in self.of_kind("edit"):
            key = (record.control, record.method or "", record.beside or "")
            self.edits.setdefault(key, {})[record.concept or ""] = record
        # A row of skipped cells only is a control that does not apply: no row.
        self.edits = {
            key: row
            for key, row in sorted(self.edits.items())
            if any(record.status != "skipped" for record in row.values())
        }
        self.concepts = sorted({c for row in self.edits.values() for c in row})

    def of_kind(self, kind: str) -> list[RunRecord]:
        """Its records of one kind."""
        return [r for r in self.records if r.kind == kind]

    def measurement(self, key: RowKey, concept: str, name: str) -> Measurement | None:
        """A cell's measurement at its chosen strength; None where it has none."""
        record = self.edits[key].get(concept)
        if record is None or record.status != "done":
            return None
        return record.measurements.get(name)


def render_tables(records: Sequence[RunRecord]) -> str:
    """The markdown of any records, one part a (world, dataset, suite, seed)."""
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for r in records:
        suite = (r.suite.name, str(r.suite.version), "quick" if r.suite.quick else "")
        key = (r.world, r.dataset, r.dataset_revision, *suite, f"{r.seed:020d}")
        groups.setdefault(key, []).append(r)
    return "\n\n".join(_group_text(Group(groups[key])) for key in sorted(groups)) + "\n"


def _group_text(group: Group) -> str:
    sections: list[Callable[[Group], str]] = [
        _title,
        _edit_section,
        _classifier_section,
        _concept_section,
        lambda g: reconstruction_section(g.of_kind("reconstruction")),
        lambda g: probe_section(g.of_kind("probe")),
        lambda g: sae_section(g.of_kind("sae")),
        lambda g: scorer_section(g.of_kind("scorer")),
        _failure_section,
    ]
    return "\n\n".join(text for section in sections if (text := section(group)))


def _title(group: Group) -> str:
    first = group.records[0]
    suite = first.suite
    quick = ", **quick: for trying out, its numbers mean nothing**" if suite.quick else ""
    lines = [
        f"## {escape(first.dataset)} (world {escape(first.world)}, suite {escape(suite.name)} "
        f"v{suite.version}, seed {first.seed}){quick}"
    ]
    measured_records = [r for r in group.of_kind("edit") if r.status == "done"]
    for what, values in (
        ("Scorers", {_scorers(r) for r in measured_records}),
        ("Attributes", {", ".join(map(escape, r.attributes)) for r in measured_records}),
        ("Backbone", {(r.backbone or "")[:8] for r in measured_records}),
    ):
        known = sorted(values - {""})
        if len(known) > 1:
            lines.append(f"**Not comparable: records differ in {what.lower()}: "
                         f"{' / '.join(known)}.**")  # fmt: skip
        elif known:
            lines.append(f"{what}: {known[0]}.")
    if first.world == "synth":
        lines.append("Drawn images: a stand-in with known truth, not photographs.")
    return "\n\n".join(lines)


def _scorers(record: RunRecord) -> str:
    return ", ".join(f"{escape(name)} ({h[:8]})" for name, h in sorted(record.scorers.items()))


def _edit_section(group: Group) -> str:
    if not group.edits:
        return ""
    notes = Footnotes()
    rows = []
    for key, by_concept in group.edits.items():
        done = [r for r in by_concept.values() if r.status == "done"]
        rows.append(
            [
                _row_name(key),
                next((r.supervision for r in by_concept.values() if r.supervision), None) or "none",
                *(_mean(group, key, column, notes) for column in COLUMNS),
                number(max((r.cost.parameters for r in done), default=0), 0),
                number(sum(r.cost.unet_calls for r in done) / max(len(done), 1), 0),
                f"{len(done)}/{len(group.concepts)}",
            ]
        )
    headings = ["method", "supervision", *(c.heading for c in COLUMNS)]
    headings += ["parameters", "U-Net calls", "cells"]
    return _section(
        "Edits",
        f"Means over concepts ({len(group.concepts)}) at the strength chosen on validation images; "
        "controls below. U-Net calls are those of a concept's fit, in images.",
        notes.under(table(headings, rows, text_columns=2)),
    )


def _mean(group: Group, key: RowKey, column: Column, notes: Footnotes) -> str:
    """Mean over concepts, or a dash where any concept has no number."""
    found = {c: group.measurement(key, c, column.measurement) for c in group.concepts}
    values = [m.value for m in found.values() if m is not None and m.value is not None]
    if len(values) == len(found):
        return number(sum(values) / len(values), column.digits)
    absent = [c for c, m in found.items() if m is None]
    done = [r for r in group.edits[key].values() if r.status == "done"]
    if len(absent) == len(found) == len(done):
        return DASH  # no such number exists for this kind of row
    if absent:
        return notes.mark(f"no number for {', '.join(absent)}")
    without = {c: m.reason or "" for c, m in found.items() if m is not None and m.value is None}
    # What comes after a reason's colon are figures that differ between concepts.
    reasons = sorted({reason.split(":")[0] for reason in without.values()})
    return notes.mark(f"undefined for {', '.join(without)}: {'; '.join(reasons)}")


def _classifier_section(group: Group) -> str:
    """What the other classifiers say: a ranking that they do not share is the scorer's."""
    names = {n for r in group.of_kind("edit") for n in r.measurements}
    others = sorted({n.split("@", 1)[1] for n in names if "@" in n})
    if not others:
        return ""
    notes = Footnotes()
    headings, columns = ["method"], []
    for column in (c for c in COLUMNS if c.measurement in PER_CLASSIFIER):
        headings += [f"{column.heading}", *(f"{column.heading}, {escape(o)}" for o in others)]
        columns += [column, *(replace(column, measurement=f"{column.measurement}@{o}")
                              for o in others)]  # fmt: skip
    rows = [
        [_row_name(key), *(_mean(group, key, c, notes) for c in columns)] for key in group.edits
    ]
    return _section(
        "Edits, by classifier",
        "The first of each is the primary classifier's.",
        notes.under(table(headings, rows)),
    )


def _concept_section(group: Group) -> str:
    if not group.edits:
        return ""
    notes = Footnotes()
    columns = [c for c in COLUMNS if c.measurement in PER_CONCEPT]
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
            row = [escape(concept), _row_name(key), strength]
            row.append(str(found[0].n) if found[0] is not None else "")
            row += shown
            rows.append(row + ([escape(", ".join(record.flags))] if flagged else []))
    headings = ["concept", "method", "strength", "n", *(c.heading for c in columns)]
    return _section(
        "Edits, by concept",
        "In brackets 95 % intervals, images resampled.",
        notes.under(table(headings + (["flags"] if flagged else []), rows, text_columns=2)),
    )


def _failure_section(group: Group) -> str:
    failed = [r for r in group.records if r.error is not None]
    if not failed:
        return ""
    rows = [
        [
            escape(f"{r.method or r.kind}{f' beside {r.beside}' if r.beside else ''}"),
            escape(r.concept or ""),
            r.status,
            escape(f"{r.error.type}: {r.error.message}") if r.error else "",
        ]
        for r in failed
    ]
    return _section(
        "Failed or skipped", table(["what", "concept", "status", "why"], rows, text_columns=4)
    )


def _row_name(key: RowKey) -> str:
    control, method, beside = key
    name = escape(method) + (f" beside {escape(beside)}" if beside else "")
    return f"*{name}*" if control else name


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"### {title}", *parts])
