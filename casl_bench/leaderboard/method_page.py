"""The page of one method: its places, every concept, whom it is told apart from, its settings."""

from __future__ import annotations

import json
from collections.abc import Sequence

from casl_bench.comparison.ranks import ALPHA
from casl_bench.leaderboard.boards import Board
from casl_bench.leaderboard.entries import Entry
from casl_bench.leaderboard.places import DATASETS, INDEX, MARKER, link, page_of
from casl_bench.leaderboard.tables import about, folded, method_table
from casl_bench.records.measurement import Measurement
from casl_bench.records.record import RunRecord
from casl_bench.reports.edit_tables import concept_section
from casl_bench.reports.grouping import Group
from casl_bench.reports.markdown import DASH, Footnotes, escape, fold, measured, number, table


def method_page(name: str, entries: Sequence[Entry]) -> str:
    """Everything that boards say of a method.

    Args:
        name: of the method.
        entries: its rows, at least one, in the order of the boards.
    """
    parts = [MARKER, f"# {escape(name)}", _what(entries), about(entries[0].board)]
    parts.append(method_table(entries, [_place(e.board) for e in entries]))
    for entry in entries:
        board = entry.board
        parts.append(_against(entry))
        if not board.group.across:
            own = Group(_own(entry))
            title = f"Concepts of {_plain(board)}"
            parts.append(folded(title, concept_section(own)))
    parts += _settings(entries)
    parts.append(link("All leaderboards", INDEX, "../"))
    return "\n\n".join(part for part in parts if part) + "\n"


def _own(entry: Entry) -> list[RunRecord]:
    records = entry.board.group.of_kind("edit")
    return [r for r in records if r.method == entry.method and not r.control]


def _what(entries: Sequence[Entry]) -> str:
    records = [r for e in entries for r in _own(e)]
    versions = sorted({r.method_version for r in records if r.method_version is not None})
    guides = sorted({g for r in records for g in r.guided_by})
    supervision = sorted({e.supervision for e in entries})
    lines = [f"Supervision: {', '.join(map(escape, supervision))}."]
    if versions:
        lines.append(f"Version: {', '.join(map(str, versions))}.")
    if guides:
        lines.append(f"Optimised against: {', '.join(map(escape, guides))}.")
    return " ".join(lines)


def _place(board: Board) -> str:
    """A board as the first cell of a row names it."""
    first = board.first
    where = "all data sets"
    if not board.group.across:
        where = link(first.dataset, page_of(DATASETS, first.dataset), "../")
    run = f"{first.world}, {first.suite.name} v{first.suite.version}, seed {first.seed}"
    return f"{where} ({escape(run)}; {escape(board.source.name)})"


def _plain(board: Board) -> str:
    first = board.first
    suite = f"{first.suite.name} v{first.suite.version}"
    return f"{board.title} ({suite}, seed {first.seed}; {board.source.name})"


def _against(entry: Entry) -> str:
    """Every other method of a board: which is better, where tests tell; in a fold."""
    comparison = entry.board.comparison
    if comparison is None or entry.standing is None:
        return ""
    notes, rows = Footnotes(), []
    for pair in comparison.pairs:
        if entry.method not in (pair.a, pair.b):
            continue
        other, sign = (pair.b, 1) if pair.a == entry.method else (pair.a, -1)
        shown = pair.difference if sign > 0 else _turned(pair.difference)
        verdict = "not told apart"
        if pair.p_holm is not None and pair.p_holm <= ALPHA and shown.value is not None:
            verdict = "better" if shown.value > 0 else "worse"
        p = DASH if pair.p_holm is None else number(pair.p_holm, 3)
        rows.append([escape(other), verdict, measured(shown, notes), p])
    if not rows:
        return ""
    headings = ["other", "this method is", "difference, mean signed log of EPR+", "p (Holm)"]
    body = notes.under(table(headings, rows, text_columns=2))
    return fold(f"Against the others: {_plain(entry.board)}", body)


def _turned(difference: Measurement) -> Measurement:
    """The difference seen from the other side."""
    low, high = difference.high, difference.low
    return difference.model_copy(
        update={
            "value": None if difference.value is None else -difference.value,
            "low": None if low is None else -low,
            "high": None if high is None else -high,
        }
    )


def _settings(entries: Sequence[Entry]) -> list[str]:
    """What the method was set to, once a distinct setting."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        if entry.board.group.across:
            continue
        for record in _own(entry):
            text = json.dumps(record.method_config, indent=2, sort_keys=True, ensure_ascii=False)
            boards = found.setdefault(text, [])
            if _plain(entry.board) not in boards:
                boards.append(_plain(entry.board))
    return [fold(f"Settings: {'; '.join(boards)}", _block(text)) for text, boards in found.items()]


def _block(text: str) -> str:
    """Indented code: nothing within can end it."""
    return "\n".join(f"    {line}" for line in text.splitlines())
