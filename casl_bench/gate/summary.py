"""The gate as markdown for a GitHub step summary, the verdict in its first line."""

from __future__ import annotations

import math
from collections.abc import Iterable

from casl_bench.gate.gate_report import CellVerdict, Effect, GateReport, SideInfo
from casl_bench.gate.verdict import Verdict
from casl_bench.reports.markdown import DASH, escape, fold, number, table

MAX_BYTES = 900_000
"""GitHub drops a summary of more than 1 MiB altogether."""

SIGNS = {
    Verdict.FAIL: "❌",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.NOT_COMPARABLE: "🚫",
    Verdict.IMPROVED: "🎉",
    Verdict.PASS: "✅",
    Verdict.NEW: "🆕",
}

_NAMES = {
    Verdict.FAIL: ("regression", "regressions"),
    Verdict.INCONCLUSIVE: ("inconclusive", "inconclusive"),
    Verdict.NOT_COMPARABLE: ("not comparable", "not comparable"),
    Verdict.IMPROVED: ("improvement", "improvements"),
    Verdict.PASS: ("without a loss", "without a loss"),
    Verdict.NEW: ("new", "new"),
}
_LONGEST, _MOST_NOTES = 2000, 20
_MARKS = {0: "✅", 1: "❌"}
_OPEN = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_COMPARABLE, Verdict.IMPROVED)
_HEADERS = ("", "data set", "method", "why", "base EPR+", "head EPR+", "change", "p (Holm)")
_TEXT_COLUMNS = 4


def headline(code: int, cells: Iterable[CellVerdict], error: str | None = None) -> str:
    """The verdict of a gate run in one line, without markup."""
    if error is not None:
        return f"casl_bench gate: no verdict: {error} (exit {code})"
    found = list(cells)
    counts = {v: sum(c.verdict == v for c in found) for v in Verdict}
    parts = [f"{n} {_NAMES[v][n != 1]}" for v, n in counts.items() if n or v == Verdict.FAIL]
    return f"casl_bench gate: {', '.join(parts)} (exit {code})"


def summary_markdown(report: GateReport, max_bytes: int = MAX_BYTES) -> str:
    """The page, of at most `max_bytes` bytes of UTF-8 whatever the number of cells.

    What failed or is open comes first, what passed is folded; rows that find no room are counted.

    Args:
        report: of the gate run.
        max_bytes: at least some kilobytes.
    """
    head = [f"### {_MARKS.get(report.exit_code, '⚠️')} {escape(report.headline[:_LONGEST])}"]
    sides = [_side("base", report.base), _side("head", report.head)]
    head.append(" · ".join([*sides, f"tier {escape(report.tier)}"]))
    head += [escape(note[:_LONGEST]) for note in report.notes[:_MOST_NOTES]]
    if len(report.notes) > _MOST_NOTES:
        head.append(f"{len(report.notes) - _MOST_NOTES:,} more notes are in gate.json.")
    if report.alerts:
        rows = [(escape(a.name), escape(a.text)) for a in report.alerts[:50]]
        head.append(fold("Speed and memory, alerts only", table(("benchmark", "change"), rows, 2)))
    legend = (
        "EPR+ at equal effect. The change's bounds are one-sided 95 % each; they vary by images "
        "or, where a method's fits differ, by paired fits. FAIL: certainly worse by more than 5 %. "
        "Without a loss: a loss of 10 % is excluded."
    )
    foot = legend if report.cells else ""
    budget = max_bytes - len("\n\n".join([*head, foot]).encode()) - 1000
    first = [c for c in report.cells if c.verdict in _OPEN]
    rest = [c for c in report.cells if c.verdict not in _OPEN]
    shown, used = _rows(first, budget)
    folded, _ = _rows(rest, budget - used)
    parts = [*head]
    if shown:
        parts.append(table(_HEADERS, shown, _TEXT_COLUMNS))
    if folded:
        parts.append(
            fold(f"{len(rest)} without a loss, or new", table(_HEADERS, folded, _TEXT_COLUMNS))
        )
    left = len(report.cells) - len(shown) - len(folded)
    if left:
        parts.append(f"{left:,} more are in gate.json.")
    return "\n\n".join([*parts, *([foot] if foot else [])]) + "\n"


def _rows(cells: list[CellVerdict], budget: int) -> tuple[list[tuple[str, ...]], int]:
    """As many rows as have room, and the bytes that they take at most.

    A table pads its cells to the widest of their column, headings to two more than they are long,
    so every row is charged for that.
    """
    rows: list[tuple[str, ...]] = []
    widths = [len(h.encode()) + 2 for h in _HEADERS]
    for cell in cells:
        row = _row(cell)
        wider = [max(w, len(text.encode())) for w, text in zip(widths, row, strict=True)]
        # The heading and the line under it, too; a cell's frame takes three bytes.
        if (len(rows) + 3) * (sum(wider) + 3 * len(row) + 2) > budget:
            break
        rows.append(row)
        widths = wider
    used = (len(rows) + 2) * (sum(widths) + 3 * len(_HEADERS) + 2) if rows else 0
    return rows, used


def _row(cell: CellVerdict) -> tuple[str, ...]:
    effect = cell.effect("precision")
    return (
        SIGNS[cell.verdict],
        escape(cell.dataset[:80]),
        escape(cell.method[:80]),
        escape(cell.reason[:200]),
        DASH if cell.base is None else number(cell.base),
        DASH if cell.head is None else number(cell.head),
        DASH if effect is None else change_text(effect),
        DASH if effect is None or effect.p_holm is None else f"{effect.p_holm:.3g}",
    )


def change_text(effect: Effect) -> str:
    """Per cent with bounds, e.g. "−12.0 % [−15.1, −8.8]"."""
    text = f"{_percent(effect.log_ratio)} %"
    if effect.low is None or effect.high is None:
        return text
    return f"{text} [{_percent(effect.low)}, {_percent(effect.high)}]"


def _percent(log_ratio: float) -> str:
    # Over a hundredfold, per cent say nothing more.
    value = 100 * math.expm1(min(log_ratio, math.log(100)))
    return ("+" if value > 0 else "") + number(value, 1)


def _side(name: str, side: SideInfo | None) -> str:
    if side is None:
        return f"{name}: none"
    commit = "" if side.commit is None else f" {side.commit[:12]}{'+' if side.dirty else ''}"
    return f"{name}: {escape(side.where)}{commit}"
