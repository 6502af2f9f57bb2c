"""What a method costs: counts that hold anywhere, times and memory of the machine that ran it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from casl_bench.records.record import RunRecord
from casl_bench.reports.grouping import (
    Group,
    RowKey,
    over_concepts,
    row_name,
    section,
    shown_largest,
    shown_mean,
)
from casl_bench.reports.markdown import DASH, Footnotes, escape, table

_ABOUT = (
    "Of one concept's fit and of one edit (one image at one strength): means over {over}, for "
    "parameters and memory the largest. A fit that methods share counts in full for each of them; "
    "what all share (inversions, the SAE) is in none. Peak memory is that of the whole process "
    "during the fit, interpreter, libraries and shared data included; on a GPU, of its tensors."
)


@dataclass(frozen=True)
class _Column:
    """A heading, a record's number, how concepts' numbers are shown as one.

    `of_a_fit` is one that a control has not, where it is turned out of the entrant's own fit.
    """

    heading: str
    of: Callable[[RunRecord], float | None]
    show: Callable[[list[float]], str]
    of_a_fit: bool = False


def edit_seconds(record: RunRecord) -> float | None:
    """Wall time of one edit of one image at one strength; None where it was not measured."""
    images = max((m.n for m in record.measurements.values()), default=0)
    edits = images * len(record.strengths)
    seconds = record.provenance.seconds.get("edit")
    return seconds / edits if seconds is not None and edits else None


_COLUMNS = (
    _Column("parameters", lambda r: r.cost.parameters, shown_largest(0)),
    _Column("U-Net calls, fit", lambda r: r.cost.unet_calls, shown_mean(0)),
    _Column("fit (s)", lambda r: r.provenance.fit_seconds, shown_mean(1), of_a_fit=True),
    _Column(
        "peak memory (MB)",
        lambda r: r.provenance.fit_peak_memory_mb,
        shown_largest(0),
        of_a_fit=True,
    ),
    _Column("U-Net calls, edit", lambda r: r.cost.edit_unet_calls, shown_mean(1)),
    _Column("edit (s)", edit_seconds, shown_mean(3)),
)


def cost_section(group: Group) -> str:
    """One row a method; under it the machine that times and memory are of."""
    if not any(group.done(key) for key in group.edits):
        return ""
    notes = Footnotes()
    rows = [
        [row_name(key), group.supervision(key), *(_cell(group, key, c, notes) for c in _COLUMNS)]
        for key in group.edits
    ]
    over = f"concepts ({len(group.concepts)})"
    if group.across:
        over = f"{len(group.concepts)} concepts of {len(group.datasets)} data sets"
    body = table(["method", "supervision", *(c.heading for c in _COLUMNS)], rows, text_columns=2)
    return section(
        "Cost, overall" if group.across else "Cost",
        _ABOUT.format(over=over),
        notes.under(body),
        machines(group),
    )


def _cell(group: Group, key: RowKey, column: _Column, notes: Footnotes) -> str:
    _, _, beside = key
    if beside and column.of_a_fit:
        return DASH
    found = group.values(key, column.of)
    done = group.done(key)
    if done and all(found[c] is None for c in done):
        return notes.mark("not measured")
    return over_concepts(found, group, column.show, notes)


def machines(group: Group) -> str:
    """Where times and memory were measured; a warning where that is more than one machine."""
    found = sorted({_machine(record) for key in group.edits for record in group.done(key).values()})
    if len(found) == 1:
        return f"Times and memory: {found[0]}."
    return (
        f"**Times and memory are of different machines, not to be compared: {'; '.join(found)}.**"
    )


def _machine(record: RunRecord) -> str:
    p = record.provenance
    threads = "threads not recorded" if p.threads is None else f"threads: {p.threads}"
    kernels = "" if p.kernels == "reference" else f", kernels: {p.kernels}"
    return escape(f"{p.device}, {p.platform}, {threads}{kernels}")
