"""Cost beside quality: who pays for what all share, and from how many edits on that pays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from casl_bench.comparison.break_even import BreakEven, Spending, break_even
from casl_bench.records.comparison import Standing
from casl_bench.reports.cost_tables import edit_seconds, machines
from casl_bench.reports.grouping import Group, RowKey, mean, section, with_interval
from casl_bench.reports.markdown import DASH, Footnotes, escape, measured, number, table

MANY = 100
"""Edits of one concept that a total is given for."""

_ABOUT = (
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
    about = _ABOUT.format(concepts=len(group.concepts), shares=shares)
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
