"""What a method costs: counts that hold anywhere, times and memory of the machine that ran it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from casl_bench.analysis.cost import BreakEven, Spending, break_even
from casl_bench.report.grouping import (
    Group,
    RowKey,
    mean,
    over_concepts,
    row_name,
    section,
    shown_largest,
    shown_mean,
    with_interval,
)
from casl_bench.report.markdown import DASH, Footnotes, escape, measured, number, table
from casl_bench.results.record import RunRecord, Standing

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


# Cost beside quality: who pays for what all share, and from how many edits on that pays.


MANY = 100
"""Edits of one concept that a total is given for."""

_ABOUT_of_cost_sharing = (
    "Seconds of the machine below, means over {concepts} concepts with their 95 % intervals. "
    "Sharing rule: each method pays as if it ran alone. **Set-up** is what it needs before its "
    "first concept: inverting the training images, and the SAE where it uses one. Every concept of "
    "a data set bears an equal share of it ({shares}); its **fit** it bears alone, also where "
    "methods share one. Not in it, as they are the same for all: inverting the image that is "
    "edited, choosing strengths, scoring."
)
_ABOUT_BREAK_EVEN = (
    "Edits of one concept from which on, or up to which, the method of the row costs less than the "
    "method of the column, set-up and fit included; intervals over concepts. Open: other concepts "
    "like these could say otherwise."
)


@dataclass(frozen=True)
class _Paid:
    """What one method paid on each concept, in seconds."""

    set_up: list[float]
    fit: list[float]
    edit: list[float]

    @property
    def spending(self) -> Spending:
        return Spending(np.add(self.set_up, self.fit), np.array(self.edit))


def cost_sharing_section(group: Group) -> str:
    """Quality, costs and break-even of every entrant; empty where set-up was not measured."""
    paid = {key: p for key in group.edits if not key[0] and (p := _paid(group, key)) is not None}
    if not paid:
        return ""
    notes = Footnotes()
    standings = _standings(group)
    rows = [_row(key, p, standings.get(key[1]), notes) for key, p in paid.items()]
    headings = ["method", "EPR+ ↑", "set-up, its share (s)", "fit (s)", "edit (s)",
                f"{MANY} edits of a concept (s)"]  # fmt: skip
    shares = ", ".join(f"{len(own)} in {escape(d)}" for d, own in group.datasets.items())
    about = _ABOUT_of_cost_sharing.format(concepts=len(group.concepts), shares=shares)
    title = "Cost beside quality" + (", overall" if group.across else "")
    parts = [about, notes.under(table(headings, rows))]
    if len(paid) > 1:
        parts += [_ABOUT_BREAK_EVEN, _break_even_table(paid)]
    return section(title, *parts, machines(group))


def _row(key: RowKey, paid: _Paid, standing: Standing | None, notes: Footnotes) -> list[str]:
    spent = paid.spending
    return [
        escape(key[1]),
        DASH if standing is None else measured(standing.epr_plus, notes),
        number(mean(paid.set_up), 1),
        with_interval(paid.fit, 1),
        with_interval(paid.edit, 3),
        with_interval(list(spent.fixed + MANY * spent.edit), 1),
    ]


def _break_even_table(paid: dict[RowKey, _Paid]) -> str:
    rows = [
        [
            escape(key[1]),
            *(
                DASH if key == other else _in_words(break_even(p.spending, q.spending))
                for other, q in paid.items()
            ),
        ]
        for key, p in paid.items()
    ]
    return table(["cheaper than →", *(escape(key[1]) for key in paid)], rows)


def _in_words(found: BreakEven) -> str:
    if found.edits is None:
        return found.verdict
    # The first whole edit that is cheaper, or the last one.
    whole = math.ceil if found.verdict == "from" else math.floor
    text = f"{found.verdict} {number(whole(found.edits), 0)}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{number(whole(found.low), 0)}, {number(whole(found.high), 0)}]"


def _paid(group: Group, key: RowKey) -> _Paid | None:
    """None where the method has not run everything, or something was not measured."""
    done = group.done(key)
    if set(done) != set(group.concepts):
        return None
    set_up: list[float] = []
    fit: list[float] = []
    edit: list[float] = []
    before = _set_ups(group)
    for dataset, concepts in group.datasets.items():
        for record in (done[c] for c in concepts):
            inversion, sae = before[dataset]
            sae = sae if "sae" in record.artefacts else 0.0
            fitted, edited = record.provenance.fit_seconds, edit_seconds(record)
            if inversion is None or sae is None or fitted is None or edited is None:
                return None
            set_up.append((inversion + sae) / len(concepts))
            fit.append(fitted)
            edit.append(edited)
    return _Paid(set_up, fit, edit)


def _set_ups(group: Group) -> dict[str, tuple[float | None, float | None]]:
    """Data set → seconds of inverting its training images, and of its SAE."""
    inversion = {r.dataset: r.provenance.seconds.get("inversion train")
                 for r in group.of_kind("reconstruction")}  # fmt: skip
    sae = {r.dataset: r.provenance.fit_seconds for r in group.of_kind("sae")}
    return {d: (inversion.get(d), sae.get(d)) for d in group.datasets}


def _standings(group: Group) -> dict[str, Standing]:
    """Method → where it stands; empty where nothing was compared."""
    found = [r.comparison for r in group.of_kind("comparison") if r.comparison is not None]
    return {s.method: s for s in found[0].standings} if found else {}
