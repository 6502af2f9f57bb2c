"""The outputs of a gate run: markdown summary, GitHub annotations, feeds of trend pages, JUnit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from casl_bench.core.files import write_json, write_text
from casl_bench.core.text import visible
from casl_bench.gate.verdict import CellVerdict, Effect, GateReport, SideInfo, Verdict
from casl_bench.report.markdown import DASH, escape, fold, number, table


def write_outputs(
    report: GateReport, out: Path | None, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Write the files into `out`, if any, and add to GitHub's step summary where there is one.

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
        # Text of other steps stands in it already.
        with Path(step_summary).open("a", encoding="utf-8") as file:
            file.write(page)
    return annotation_lines(report) if environment.get("GITHUB_ACTIONS") == "true" else []


_WORDS = {
    Verdict.FAIL: ("❌", "regression", "regressions"),
    Verdict.INCONCLUSIVE: ("❔", "inconclusive", "inconclusive"),
    Verdict.NOT_COMPARABLE: ("🚫", "not comparable", "not comparable"),
    Verdict.IMPROVED: ("🎉", "improvement", "improvements"),
    Verdict.PASS: ("✅", "without a loss", "without a loss"),
    Verdict.NEW: ("🆕", "new", "new"),
}


def headline(code: int, cells: Iterable[CellVerdict], error: str | None = None) -> str:
    """The verdict of a gate run in one line, without markup."""
    if error is not None:
        return f"casl_bench gate: no verdict: {error} (exit {code})"
    found = [c.verdict for c in cells]
    counts = {v: found.count(v) for v in Verdict}
    parts = [f"{n} {_WORDS[v][1 + (n != 1)]}" for v, n in counts.items() if n or v == Verdict.FAIL]
    return f"casl_bench gate: {', '.join(parts)} (exit {code})"


# The summary, the verdict in its first line.

MAX_BYTES = 900_000
"""GitHub drops a summary of more than 1 MiB altogether."""

_LONGEST, _MOST_NOTES = 2000, 20
_FOLDED = (Verdict.PASS, Verdict.NEW)
_HEADERS = ("", "data set", "method", "why", "base EPR+", "head EPR+", "change", "p (Holm)")
_LEGEND = (
    "EPR+ at equal effect. The change's bounds are one-sided 95 % each; they vary by images or, "
    "where a method's fits differ, by paired fits. FAIL: significantly worse by more than 5 %. "
    "Without a loss: a loss of 10 % is excluded."
)


def summary_markdown(report: GateReport, max_bytes: int = MAX_BYTES) -> str:
    """The page, of at most `max_bytes` bytes of UTF-8 for any number of cells.

    Failures and open cells come first, the others are folded; rows that find no room are counted.
    """
    most = len(report.cells)
    page = _summary(report, most)
    while len(page.encode()) > max_bytes and most:
        # Rows vary in size: a tenth less than what would fit were they all alike.
        most = min(most - 1, int(0.9 * most * max_bytes / len(page.encode())))
        page = _summary(report, most)
    return page


def _summary(report: GateReport, most: int) -> str:
    mark = {0: "✅", 1: "❌"}.get(report.exit_code, "⚠️")
    sides = f"{_side('base', report.base)} · {_side('head', report.head)}"
    parts = [
        f"### {mark} {escape(report.headline[:_LONGEST])}",
        f"{sides} · tier {escape(report.tier)}",
        *(escape(note[:_LONGEST]) for note in report.notes[:_MOST_NOTES]),
    ]
    if len(report.notes) > _MOST_NOTES:
        parts.append(f"{len(report.notes) - _MOST_NOTES:,} more notes are in gate.json.")
    first = [c for c in report.cells if c.verdict not in _FOLDED]
    rest = [c for c in report.cells if c.verdict in _FOLDED]
    shown, folded = first[:most], rest[: max(most - len(first), 0)]
    if shown:
        parts.append(table(_HEADERS, list(map(_row, shown)), 4))
    if folded:
        body = table(_HEADERS, list(map(_row, folded)), 4)
        parts.append(fold(f"{len(rest)} without a loss, or new", body))
    left = len(report.cells) - len(shown) - len(folded)
    if left:
        parts.append(f"{left:,} more are in gate.json.")
    if report.cells:
        parts.append(_LEGEND)
    return "\n\n".join(parts) + "\n"


def _row(cell: CellVerdict) -> tuple[str, ...]:
    effect = cell.effect("precision")
    return (
        _WORDS[cell.verdict][0],
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
    return f"{name}: {escape(side.where + commit)}"


# Lines that GitHub shows beside a job: one per failed cell, no token needed.

MOST = 10
"""GitHub shows no more of one step."""


def annotation_lines(report: GateReport) -> list[str]:
    """`::error` for failures and a gate without a verdict, at most `MOST` in all."""
    lines = [
        _annotation(f"casl_bench gate: {cell.method} on {cell.dataset}", cell.reason)
        for cell in report.of(Verdict.FAIL)
    ]
    if report.error is not None:
        lines.append(_annotation("casl_bench gate", report.error))
    if len(lines) > MOST:
        more = f"{len(lines) - MOST + 1} more are in the summary"
        lines[MOST - 1 :] = [_annotation("casl_bench gate", more)]
    return lines


def _annotation(title: str, message: str) -> str:
    title = _data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::error title={title}::{_data(message)}"


def _data(text: str) -> str:
    """Text as GitHub's own toolkit escapes it in a message, on one line."""
    return visible(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


# Feeds of trend pages, for cells whose head has a number.


def github_action_benchmark(report: GateReport) -> list[dict[str, Any]]:
    """EPR+ of the head for the tool `customBiggerIsBetter` of github-action-benchmark."""
    rows = []
    for cell in report.cells:
        if cell.head is None:
            continue
        effect = cell.effect("precision")
        extra = [f"{cell.verdict}: {cell.reason}", f"{cell.concepts} concepts, {cell.fits} fits"]
        if effect is not None:
            extra.append(f"change {change_text(effect)}")
        rows.append({"name": f"{cell.dataset}/{cell.method}", "unit": "EPR+", "value": cell.head,
                     "extra": "\n".join(extra)})  # fmt: skip
    return rows


def bencher(report: GateReport) -> dict[str, dict[str, dict[str, float]]]:
    """Bencher Metric Format: EPR+ of the head, and log ratios over the base with their bounds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell in report.cells:
        if cell.head is None:
            continue
        measures = {"epr_plus": {"value": cell.head}}
        for effect in cell.effects:
            measure = {"value": effect.log_ratio}
            if effect.low is not None and effect.high is not None:
                measure |= {"lower_value": effect.low, "upper_value": effect.high}
            measures[f"{effect.quantity}_log_ratio"] = measure
        found[f"{cell.dataset}/{cell.method}"] = measures
    return found


def junit_xml(report: GateReport) -> str:
    """A suite per data set, a test per method, as every CI shows them.

    FAIL is a failure, open and new cells are skipped, a gate without a verdict is an error.
    """
    # Here: only a run that writes it needs the package.
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    def case(cell: CellVerdict) -> TestCase:
        # XML knows no control characters, not even escaped.
        test = TestCase(visible(cell.method), visible(f"gate.{cell.dataset}"), time=0)
        text = visible(f"{cell.verdict}: {cell.reason}")
        if cell.verdict == Verdict.FAIL:
            test.result = [Failure(text, "regression")]
        elif cell.verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_COMPARABLE, Verdict.NEW):
            test.result = [Skipped(text)]
        else:
            test.system_out = text
        return test

    suites: dict[str, list[TestCase]] = {}
    for cell in report.cells:
        suites.setdefault(cell.dataset, []).append(case(cell))
    if report.error is not None:
        test = TestCase("gate", "gate", time=0)
        test.result = [Error(visible(report.error), "no verdict")]
        suites["gate"] = [test]
    xml = JUnitXml("casl_bench gate")
    for name, tests in suites.items():
        suite = TestSuite(visible(name))
        suite.add_testcases(tests)
        xml.add_testsuite(suite)
    xml.update_statistics()
    text: str = xml.tostring().decode()
    return text
