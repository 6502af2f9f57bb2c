"""Boards for papers and programs: LaTeX, CSV and JSON of the rows that the pages show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from casl_bench.core.files import json_text
from casl_bench.report.columns import BOARD, EPR_PLUS, LATEX, Column
from casl_bench.report.grouping import Number, Row
from casl_bench.report.leaderboard.boards import LeaderboardTable, Source, boards_of
from casl_bench.report.leaderboard.entries import Entry, entries_of

if TYPE_CHECKING:
    import pandas as pd

JSON_VERSION = 2
"""Raised when a field of the JSON export changes its meaning."""

_LATEX_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_LATEX_ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "÷": r"$\div$"}


def export(sources: Sequence[Source], form: str) -> str:
    """All boards in one of the forms.

    Args:
        sources: record files.
        form: "latex" (a booktabs table a board), "csv" (a line a row of any board) or "json".
    """
    sources = sorted(sources, key=lambda s: s.name)
    boards = [board for source in sources for board in boards_of(source)]
    if form == "json":
        return json_text(_as_json(sources, boards))
    if form == "csv":
        text: str = _frame(boards).to_csv(index=False, lineterminator="\n")
        return text
    return "\n".join(_latex(board) for board in boards)


def _as_json(sources: Sequence[Source], boards: Sequence[LeaderboardTable]) -> dict[str, Any]:
    return {
        "schema_version": JSON_VERSION,
        "generated_from": [
            {"file": s.file, "sha256": s.sha256, "records": len(s.records)} for s in sources
        ],
        "boards": [_board(board) for board in boards],
    }


def _board(board: LeaderboardTable) -> dict[str, Any]:
    comparison = board.comparison
    found = {} if comparison is None else comparison.model_dump(mode="json")
    return {
        **_place(board),
        "datasets": [part.records[0].dataset for part in board.parts],
        "dataset_revisions": [part.records[0].dataset_revision for part in board.parts],
        "concepts": board.group.concepts,
        "attributes": {p.records[0].dataset: list(p.records[0].attributes) for p in board.parts},
        "scorers": {p.records[0].dataset: p.records[0].scorers for p in board.parts},
        "not_comparable_in": list(board.mixed),
        "level": found.get("level"),
        "rows": [_row(entry) for entry in entries_of(board)],
        "pairs": found.get("pairs", []),
        "agreements": found.get("agreements", []),
        "sensitivity": found.get("sensitivity", []),
    }


def _place(board: LeaderboardTable) -> dict[str, Any]:
    first = board.first
    return {
        "records": board.source.name,
        "world": first.world,
        "board": board.title,
        "suite": first.suite.name,
        "suite_version": first.suite.version,
        "quick": first.suite.quick,
        "seed": first.seed,
    }


def _row(entry: Entry) -> dict[str, Any]:
    standing = entry.standing
    return {
        "method": entry.method,
        "status": entry.status,
        "rank_low": None if standing is None else standing.rank_low,
        "rank_high": None if standing is None else standing.rank_high,
        "significance_letters": None if standing is None else standing.group,
        "supervision": entry.row.supervision,
        "epr_plus": _number(entry.epr_plus),
        "reached": None if standing is None else standing.reached,
        "wrong_way": None if standing is None else standing.wrong_way,
        "numbers": {c.name: _number(_value(c, entry)) for c in BOARD},
        "cells_done": entry.done,
        "cells_expected": entry.expected,
        "flags": dict(entry.flags),
    }


def _value(column: Column[Row], entry: Entry) -> Number:
    found = column.of(entry.row)
    return found if isinstance(found, Number) else Number()


def _number(found: Number) -> dict[str, Any]:
    reason = found.reason or None
    return {"value": found.value, "low": found.low, "high": found.high, "reason": reason}


def _frame(boards: Sequence[LeaderboardTable]) -> pd.DataFrame:
    """One line a row of any board; what is missing is empty."""
    import pandas as pd

    lines = []
    for board in boards:
        for entry in entries_of(board):
            row = _row(entry)
            headline, numbers = row.pop("epr_plus"), row.pop("numbers")
            flags = "; ".join(f"{name}: {count}" for name, count in row.pop("flags").items())
            ends = {"epr_plus_low": headline["low"], "epr_plus_high": headline["high"]}
            own = {name: number["value"] for name, number in numbers.items()}
            line = {**_place(board), **row, "epr_plus": headline["value"], **ends, **own}
            lines.append({**line, "flags": flags})
    whole = ["rank_low", "rank_high", "reached", "wrong_way"]
    return pd.DataFrame(lines).astype({name: "Int64" for name in whole})


def _latex(board: LeaderboardTable) -> str:
    """A booktabs table: ranked rows, a rule, then those without a rank."""
    import pandas as pd

    columns = [column for column in BOARD if column.name in LATEX]
    entries = entries_of(board)
    frame = pd.DataFrame(
        [
            {
                "Rank": entry.rank.replace("–", "--") or "---",
                "Method": latex_escape(entry.method),
                "Letters": "---" if entry.standing is None else entry.standing.group,
                _heading(EPR_PLUS): _latex_number(entry.epr_plus, 2),
                **{_heading(c): _latex_number(_value(c, entry), c.digits) for c in columns},
                "Cells": f"{entry.done}/{entry.expected}",
            }
            for entry in entries
        ]
    )
    style = frame.style.hide(axis="index")
    first = board.first
    where = f"{board.title} (world {first.world}, suite {board.suite}, seed {first.seed})"
    text: str = style.to_latex(
        hrules=True,
        column_format="lll" + "r" * (len(frame.columns) - 3),
        caption=f"{latex_escape(where)}: EPR+ with its 95\\,\\% interval, chance is 1.",
        position_float="centering",
    )
    ranked = sum(entry.standing is not None for entry in entries)
    return _with_rule(text, ranked) if 0 < ranked < len(entries) else text


def _heading(column: Column[Any]) -> str:
    text = latex_escape(column.header[:1].upper() + column.header[1:])
    for character, command in _LATEX_ARROWS.items():
        text = text.replace(character, command)
    return text


def latex_escape(text: str) -> str:
    """Text that is no command of LaTeX, whatever a name holds."""
    return text.translate(_LATEX_SPECIAL)


def _with_rule(text: str, ranked: int) -> str:
    """A thin rule under the ranked rows."""
    lines = text.split("\n")
    start = lines.index(r"\midrule") + 1
    lines.insert(start + ranked, r"\midrule")
    return "\n".join(lines)


def _latex_number(found: Number, digits: int) -> str:
    if found.value is None:
        return "---"
    text = f"{found.value:,.{digits}f}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"
    return "$" + text.replace(",", "{,}").replace("{,} ", ", ") + "$"
