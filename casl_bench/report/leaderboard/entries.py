"""One row of a leaderboard as numbers: what markdown, LaTeX, CSV and JSON all show.

A number over concepts is there only where every concept has its own: a mean over fewer is another
quantity, and would let a method gain by failing where it is bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.report.columns import (
    BOARD,
    EPR_PLUS,
    LETTERS,
    RANK,
    REACHED,
    SUPERVISION,
    Column,
    Placed,
    flag,
    of_row,
)
from casl_bench.report.grouping import Number, Row
from casl_bench.report.leaderboard.boards import METHODS, LeaderboardTable, link, page_of
from casl_bench.report.markdown import escape
from casl_bench.results.record import RunRecord

Status = Literal["ranked", "unranked", "incomplete", "control"]


@dataclass(frozen=True)
class Entry(Placed):
    """One method on one board.

    Attributes:
        board: that it stands on.
        status: "ranked"; "unranked" where nothing was compared; "incomplete" where cells are
            missing; "control".
        done: finished cells, of all fits.
        expected: cells that there should be.
    """

    board: LeaderboardTable
    status: Status
    done: int
    expected: int

    @property
    def method(self) -> str:
        """Its name."""
        return self.row.key.method

    @property
    def records(self) -> list[RunRecord]:
        """Its cells, of all its fits or draws."""
        return _records(self.board, self.row)

    @property
    def flags(self) -> dict[str, int]:
        """Flag → number of cells that have it."""
        return count_flags(self.row.done.values())

    @property
    def epr_plus(self) -> Number:
        """The headline; of a control without an interval."""
        if self.standing is not None:
            return Number.of(self.standing.epr_plus)
        if self.status == "control":
            return _of_control(self.row)
        if self.status == "incomplete":
            missing = self.row.group.listed(set(self.row.group.concepts) - set(self.row.done))
            return Number(reason=f"some cells are missing{f': {missing}' if missing else ''}")
        if self.board.mixed:
            return Number(reason=f"records differ in {', '.join(self.board.mixed)}: not comparable")
        return Number(reason="these records hold no comparison at equal effect")


def entries_of(board: LeaderboardTable) -> list[Entry]:
    """All rows: ranked ones best first, then by name the others, then the controls.

    Of a random control with several draws the first is shown; controls matched to a method are in
    the run's own tables.
    """
    found = [_entry(board, row) for row in board.group.rows if row.key.is_first_of_its_kind]
    standings = board.comparison.standings if board.comparison is not None else ()
    place = {standing.method: i for i, standing in enumerate(standings)}
    last: dict[Status, int] = {"ranked": 0, "unranked": 1, "incomplete": 1, "control": 2}
    return sorted(found, key=lambda e: (last[e.status], place.get(e.method, 0), e.method))


def _entry(board: LeaderboardTable, row: Row) -> Entry:
    records = _records(board, row)
    again = 1 + max(r.fit_seed for r in records) if row.key.control else board.fits
    skipped = sum(r.status == "skipped" for r in records)
    done = sum(r.status == "done" for r in records)
    expected = len(board.group.concepts) * again - skipped
    complete = not row.key.control and done >= expected
    standing = board.standing(row.key.method) if complete else None
    status: Status = "control" if row.key.control else "incomplete"
    if complete:
        status = "unranked" if standing is None else "ranked"
    return Entry(row, standing, board, status, done, expected)


def _records(board: LeaderboardTable, row: Row) -> list[RunRecord]:
    return [
        r
        for r in board.group.of_kind("edit")
        if (r.method, r.control, r.beside) == (row.key.method, row.key.control, None)
    ]


def _of_control(row: Row) -> Number:
    """A control's EPR+ as comparisons average it; none of what EPR+ is divided by."""
    found = [n.value for n in row.each(EPR_PLUS.of).values()]
    logs = [signed_log(value) for value in found if value is not None]
    complete = logs and len(logs) == len(found)
    return Number(signed_exp(sum(logs) / len(logs))) if complete else Number()


def board_columns(up: str = "") -> list[Column[Entry]]:
    """Of a board, in order; for `up` see `link`."""

    def name(entry: Entry) -> str:
        if entry.status == "control":
            return f"*{escape(entry.method)}*"
        return link(entry.method, page_of(METHODS, entry.method), up)

    rank, *others = method_columns()
    return [rank, Column("method", "method", name, text=True), *others]


def method_columns() -> list[Column[Entry]]:
    """Of one method on several boards, behind the name of the board."""
    return [
        RANK,
        LETTERS,
        of_row(SUPERVISION),
        Column("epr_plus", EPR_PLUS.label, lambda entry: entry.epr_plus, 2, EPR_PLUS.better),
        REACHED,
        *map(of_row, BOARD),
        Column("cells", "cells", lambda entry: f"{entry.done}/{entry.expected}"),
        Column("flags", "flags", lambda entry: _short(entry.flags)),
    ]


# What a reader should know of a row, one letter per fault, with a legend.


NOT_CLEAN = "code not clean"
"""Made by a checkout with changes, or by one of which that is not known."""

_LETTERS = {
    "not reached": ("N", "no strength of the grid has the headline's effect"),
    "wrong way": ("W", "most images, or the effect as a whole, went against what was asked"),
    "non-monotone": ("M", "more strength gave less effect before 75 % of the full one was reached"),
    "one classifier only": ("C", "another classifier sees less than half of the target's change"),
    "perceptual drift": ("P", "on average the edit moved more than half of the way to an unrelated "
                         "image"),
    "identity drift": ("I", "on average the edit's likeness to the subject fell more than half "
                       "of the way to another subject's"),
    "guided by a scorer": ("G", "optimised against a scorer, and scored by another"),
    "pretrained weights": ("T", "fitted elsewhere and loaded"),
    "EPR undefined": ("U", "the other attributes moved by less than the noise floor: no EPR raw"),
    NOT_CLEAN: ("D", "made by code that is not a clean commit"),
}  # fmt: skip


def count_flags(records: Iterable[RunRecord]) -> dict[str, int]:
    """Flag → number of records that have it."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(map(flag, record.flags))
        if record.provenance.git_dirty is not False:
            counts[NOT_CLEAN] += 1
    return {name: counts[name] for name in _in_order(counts)}


def legend(entries: Iterable[Entry]) -> str:
    """The flags that any row has; empty where there is none."""
    parts = []
    for name in _in_order({n for entry in entries for n in entry.flags}):
        letter, what = _LETTERS.get(name, ("", ""))
        parts.append(f"**{letter}** {escape(name)}: {what}" if letter else f"**{escape(name)}**")
    return f"Flags, each with its number of cells: {'; '.join(parts)}." if parts else ""


def _short(flags: Mapping[str, int]) -> str:
    """As a cell shows them: `N 2, C 1`; a flag without a letter by its name."""
    return ", ".join(
        f"{_LETTERS[name][0] if name in _LETTERS else escape(name)} {count}"
        for name, count in flags.items()
    )


def _in_order(names: Iterable[str]) -> list[str]:
    places = {name: place for place, name in enumerate(_LETTERS)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
