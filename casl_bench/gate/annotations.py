"""Lines that GitHub shows beside a job: one a failed cell, no token needed."""

from __future__ import annotations

from casl_bench.gate.gate_report import GateReport
from casl_bench.gate.verdict import Verdict

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
