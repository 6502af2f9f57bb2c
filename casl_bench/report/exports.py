"""Boards for papers and programs: LaTeX, CSV and JSON of the rows that the pages show."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from casl_bench.core.files import json_text
from casl_bench.core.text import visible
from casl_bench.report.columns import BOARD, EPR_PLUS, LATEX, Column
from casl_bench.report.grouping import Number, Row
from casl_bench.report.leaderboard import Entry, LeaderboardTable, Source, boards_of, entries_of
from casl_bench.report.markdown import one_line

JSON_VERSION = 2
"""Raised when a field of the JSON export changes its meaning."""

_FORMULA = tuple("=+-@＝＋－＠")
"""A spreadsheet takes a cell that begins with one of these for a formula; some read wide ones."""

_LATEX_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_LATEX_ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "÷": r"$\div$"}


def export(sources: Sequence[Source], form: str) -> str:
    """All boards as "latex" (a booktabs table each), "csv" (a line per row of any) or "json"."""
    sources = sorted(sources, key=lambda s: s.name)
    boards = [board for source in sources for board in boards_of(source)]
    if form == "json":
        return json_text(_as_json(sources, boards))
    if form == "csv":
        return _as_csv(boards)
    return "\n".join(_latex(board) for board in boards)


def _as_json(sources: Sequence[Source], boards: Sequence[LeaderboardTable]) -> dict[str, Any]:
    return {
        "schema_version": JSON_VERSION,
        "generated_from": [
            {"file": s.file, "sha256": s.sha256, "records": len(s.records)} for s in sources
        ],
        "columns": {c.name: {"label": c.label, "better": c.better, "note": c.note} for c in BOARD},
        "boards": [_board(board) for board in boards],
    }


def _board(board: LeaderboardTable) -> dict[str, Any]:
    comparison = board.comparison
    found = {} if comparison is None else comparison.model_dump(mode="json")
    return {
        **_place(board),
        "datasets": [part.first.dataset for part in board.parts],
        "dataset_revisions": [part.first.dataset_revision for part in board.parts],
        "concepts": board.group.concepts,
        "attributes": {p.first.dataset: list(p.first.attributes) for p in board.parts},
        "scorers": {p.first.dataset: p.first.scorers for p in board.parts},
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
        "world": first.domain_kind,
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


def _as_csv(boards: Sequence[LeaderboardTable]) -> str:
    """One line per row of any board; what is missing is empty, and no text is a formula."""
    lines: list[dict[str, Any]] = []
    for board in boards:
        for entry in entries_of(board):
            row = _row(entry)
            headline, numbers, flags = (row.pop(name) for name in ("epr_plus", "numbers", "flags"))
            lines.append(
                {
                    **_place(board),
                    **row,
                    "epr_plus": headline["value"],
                    "epr_plus_low": headline["low"],
                    "epr_plus_high": headline["high"],
                    **{name: number["value"] for name, number in numbers.items()},
                    "flags": "; ".join(f"{name}: {count}" for name, count in flags.items()),
                }
            )
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)
    return out.getvalue()


def csv_cell(value: Any) -> Any:
    """Text behind an apostrophe where a spreadsheet would take it for a formula, and run it."""
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.lstrip()[:1] in _FORMULA else visible(value)


def _latex(board: LeaderboardTable) -> str:
    """A booktabs table: ranked rows, a rule, then those without a rank."""
    columns = [column for column in BOARD if column.name in LATEX]
    headings = ["Rank", "Method", "Letters", _heading(EPR_PLUS), *map(_heading, columns), "Cells"]
    ranked: list[str] = []
    others: list[str] = []
    for entry in entries_of(board):
        cells = [
            entry.rank.replace("–", "--") or "---",
            latex_escape(entry.method),
            "---" if entry.standing is None else latex_escape(entry.standing.group),
            _latex_number(entry.epr_plus, EPR_PLUS.digits),
            *(_latex_number(_value(c, entry), c.digits) for c in columns),
            f"{entry.done}/{entry.expected}",
        ]
        (others if entry.standing is None else ranked).append(" & ".join(cells) + r" \\")
    first = board.first
    where = f"{board.title} ({first.domain_title}, suite {board.suite}, seed {first.seed})"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{latex_escape(where)}: EPR+ with its 95\\,\\% interval, chance is 1.}}",
            f"\\begin{{tabular}}{{lll{'r' * (len(headings) - 3)}}}",
            r"\toprule",
            " & ".join(headings) + r" \\",
            *([r"\midrule", *ranked] if ranked else []),
            *([r"\midrule", *others] if others else []),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _heading(column: Column[Any]) -> str:
    text = latex_escape(column.header[:1].upper() + column.header[1:])
    for character, command in _LATEX_ARROWS.items():
        text = text.replace(character, command)
    return text


def latex_escape(text: str) -> str:
    """Text that is no command of LaTeX, whatever a name holds."""
    return visible(one_line(text)).translate(_LATEX_SPECIAL)


def _latex_number(found: Number, digits: int) -> str:
    if found.value is None:
        return "---"
    text = f"{found.value:,.{digits}f}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"
    return "$" + text.replace(",", "{,}").replace("{,} ", ", ") + "$"
