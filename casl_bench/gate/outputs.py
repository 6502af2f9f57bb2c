"""The gate as markdown for a GitHub step summary, the verdict in its first line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from casl_bench.core.files import write_json, write_text
from casl_bench.gate.verdict import CellVerdict, Effect, GateReport, SideInfo, Verdict
from casl_bench.report.markdown import DASH, escape, fold, number, table

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


# Lines that GitHub shows beside a job: one a failed cell, no token needed.


MOST = 10
"""GitHub shows no more of one step."""


def annotation_lines(report: GateReport) -> list[str]:
    """`::error` for failures and a gate without a verdict, `::warning` for alerts, `MOST` in all.

    Args:
        report: of the gate run.
    """
    lines = [
        _line("error", f"casl_bench gate: {cell.method} on {cell.dataset}", cell.reason)
        for cell in report.of(Verdict.FAIL)
    ]
    if report.error is not None:
        lines.append(_line("error", "casl_bench gate", report.error))
    lines += [_line("warning", f"casl_bench gate: {a.name}", a.text) for a in report.alerts]
    if len(lines) > MOST:
        more = len(lines) - MOST + 1
        rest = _line("error", "casl_bench gate", f"{more} more are in the summary")
        lines = [*lines[: MOST - 1], rest]
    return lines


def _line(level: str, title: str, message: str) -> str:
    return f"::{level} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    """What GitHub's own toolkit escapes in a message, and anything that ends a line elsewhere."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# Feeds of trend pages: github-action-benchmark and Bencher.


def github_action_benchmark(report: GateReport) -> list[dict[str, Any]]:
    """EPR+ of the head for the tool `customBiggerIsBetter`.

    Args:
        report: of the gate run.
    """
    rows = []
    for cell in _with_number(report):
        effect = cell.effect("precision")
        extra = [f"{cell.verdict}: {cell.reason}", f"{cell.concepts} concepts, {cell.fits} fits"]
        if effect is not None:
            extra.append(f"change {change_text(effect)}")
        rows.append(
            {"name": _name(cell), "unit": "EPR+", "value": cell.head, "extra": "\n".join(extra)}
        )
    return rows


def bencher(report: GateReport) -> dict[str, dict[str, dict[str, float]]]:
    """Bencher Metric Format: EPR+ of the head, and its log ratio over the base with its bounds.

    Args:
        report: of the gate run.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell in _with_number(report):
        assert cell.head is not None  # `_with_number`
        measures = {"epr_plus": {"value": cell.head}}
        for effect in cell.effects:
            measure = {"value": effect.log_ratio}
            if effect.low is not None and effect.high is not None:
                measure |= {"lower_value": effect.low, "upper_value": effect.high}
            measures[f"{effect.quantity}_log_ratio"] = measure
        found[_name(cell)] = measures
    return found


def _with_number(report: GateReport) -> list[CellVerdict]:
    return [c for c in report.cells if c.head is not None]


def _name(cell: CellVerdict) -> str:
    return f"{cell.dataset}/{cell.method}"


# The gate as JUnit XML: a suite a data set, a test a method, as every CI shows them.


def junit_xml(report: GateReport) -> str:
    """FAIL is a failure, what is open or new is skipped, a gate without a verdict is an error.

    Args:
        report: of the gate run.
    """
    # Here: only a run that writes it needs the package.
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    def case(cell: CellVerdict) -> TestCase:
        test = TestCase(_clean(cell.method), classname=_clean(f"gate.{cell.dataset}"), time=0)
        text = _clean(f"{cell.verdict}: {cell.reason}")
        if cell.verdict == Verdict.FAIL:
            test.result = [Failure(text, "regression")]
        elif cell.verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_COMPARABLE, Verdict.NEW):
            test.result = [Skipped(text)]
        else:
            test.system_out = text
        return test

    xml = JUnitXml("casl_bench gate")
    for dataset in dict.fromkeys(c.dataset for c in report.cells):
        suite = TestSuite(_clean(dataset))
        suite.add_testcases([case(c) for c in report.cells if c.dataset == dataset])
        xml.add_testsuite(suite)
    if report.error is not None:
        test = TestCase("gate", classname="gate", time=0)
        test.result = [Error(_clean(report.error), "no verdict")]
        suite = TestSuite("gate")
        suite.add_testcase(test)
        xml.add_testsuite(suite)
    xml.update_statistics()
    text: str = xml.tostring().decode()
    return text


def _clean(text: str) -> str:
    """XML knows no control characters, not even escaped."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# All outputs of a gate run, written whatever its end was.


def write_outputs(
    report: GateReport, out: Path | None, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Write the files, add to GitHub's step summary where there is one, and say what to print.

    Args:
        report: of the gate run.
        out: folder for gate.json, junit.xml, summary.md and the feeds; None for none of them.
        environment: GitHub's variables are read from it.

    Returns:
        Lines for standard output: annotations within a GitHub job, none elsewhere.

    Raises:
        UsageError: where a file cannot be written.
    """
    page = summary_markdown(report)
    if out is not None:
        write_json(out / "gate.json", report.model_dump(mode="json"))
        write_text(out / "summary.md", page)
        write_text(out / "junit.xml", junit_xml(report))
        write_json(out / "github_action_benchmark.json", github_action_benchmark(report))
        write_json(out / "bencher.json", bencher(report))
    step_summary = environment.get("GITHUB_STEP_SUMMARY")
    if step_summary:
        # Other steps' text stands in it already.
        with Path(step_summary).open("a", encoding="utf-8") as file:
            file.write(page)
    return annotation_lines(report) if environment.get("GITHUB_ACTIONS") == "true" else []
