"""Every output says the verdict, whatever names hold, and finds room for it."""

from __future__ import annotations

import json
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.gate.compare_runs import error_report
from casl_bench.gate.outputs import (
    annotation_lines,
    bencher,
    github_action_benchmark,
    headline,
    junit_xml,
    summary_markdown,
    write_outputs,
)
from casl_bench.gate.verdict import (
    CellVerdict,
    Effect,
    GateReport,
    SideInfo,
    Verdict,
    exit_code,
)

HOSTILE = "a|b<script>::error::x\n`c`\x07,%"


def cell(verdict: Verdict, method: str = "casl", **fields: object) -> CellVerdict:
    effect = Effect(quantity="precision", log_ratio=-0.2, low=-0.3, high=-0.1, p=0.001,
                    p_holm=0.002, varies_by="fits", n=5)  # fmt: skip
    known = {"dataset": "faces", "reason": "why", "base": 5.0, "head": 4.0, "effects": (effect,),
             "concepts": 6, "fits": 5}  # fmt: skip
    return CellVerdict(method=method, verdict=verdict, **(known | fields))  # type: ignore[arg-type]


def report(*cells: CellVerdict, **fields: object) -> GateReport:
    code = exit_code(c.verdict for c in cells)
    known = {"tier": "statistical", "exit_code": code, "headline": headline(code, cells),
             "base": SideInfo(where="base", commit="a" * 40), "cells": cells}  # fmt: skip
    return GateReport(**(known | fields))  # type: ignore[arg-type]


def test_the_first_line_is_the_verdict() -> None:
    found = report(cell(Verdict.FAIL), cell(Verdict.PASS), cell(Verdict.PASS))
    lines = summary_markdown(found).splitlines()
    assert lines[0] == "### ❌ casl_bench gate: 1 regression, 2 without a loss (exit 1)"
    assert any("−18.1 % [−25.9, −9.5]" in line and "0.002" in line for line in lines)
    assert summary_markdown(report(cell(Verdict.PASS))).startswith("### ✅ ")
    assert summary_markdown(report(cell(Verdict.INCONCLUSIVE))).startswith("### ⚠️ ")


def test_ten_thousand_cells_find_room() -> None:
    cells = [
        cell(Verdict.FAIL if i < 500 else Verdict.PASS, "m" * 60 + str(i), reason="é" * 200)
        for i in range(10_000)
    ]
    notes = tuple(f"A/A m{i}: {'sd ' * 100}" for i in range(10_000))
    page = summary_markdown(report(*cells, notes=notes))
    assert "9,980 more notes are in gate.json." in page
    assert 500_000 < len(page.encode()) < 900_000
    assert page.count("| ❌") == 500 and page.count("| ✅") > 500
    assert "more are in gate.json." in page
    assert page.rstrip().endswith("excluded.")


def test_names_break_nothing() -> None:
    found = report(cell(Verdict.FAIL, HOSTILE, reason=HOSTILE), notes=(HOSTILE,))
    page = summary_markdown(found)
    assert "<script>" not in page and "\x07" not in page
    (row,) = [line for line in page.splitlines() if line.startswith("| ❌")]
    assert row.replace(r"\|", "").count("|") == 9
    xml = JUnitXml.fromstring(junit_xml(found).encode())
    assert xml.failures == 1
    (line,) = annotation_lines(found)
    assert line.count("\n") == 0 and line.startswith("::error title=")
    title = line.removeprefix("::error title=").split("::")[0]
    assert "," not in title and ":" not in title and "%25" in title


def test_junit_counts() -> None:
    verdicts = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_COMPARABLE, Verdict.PASS]
    found = JUnitXml.fromstring(junit_xml(report(*map(cell, verdicts))).encode())
    assert (found.tests, found.failures, found.skipped, found.errors) == (4, 1, 2, 0)
    results = [case.result for suite in found for case in suite]
    assert [type(r[0]) if r else None for r in results] == [Failure, Skipped, Skipped, None]


def test_a_gate_without_a_verdict_says_why_everywhere(tmp_path: Path) -> None:
    found = error_report(InvalidBenchmarkError("a control is out of its bounds"), "statistical")
    step = tmp_path / "step.md"
    step.write_text("before\n", encoding="utf-8")
    environment = {"GITHUB_STEP_SUMMARY": str(step), "GITHUB_ACTIONS": "true"}
    lines = write_outputs(found, tmp_path / "out", environment)
    assert lines == ["::error title=casl_bench gate::a control is out of its bounds"]
    assert step.read_text(encoding="utf-8").startswith("before\n### ⚠️ casl_bench gate: no verdict")
    stored = json.loads((tmp_path / "out" / "gate.json").read_text(encoding="utf-8"))
    assert GateReport.model_validate(stored) == found
    xml = JUnitXml.fromfile(str(tmp_path / "out" / "junit.xml"))
    assert [type(r) for s in xml for c in s for r in c.result] == [Error]


def test_outside_of_github_nothing_is_printed(tmp_path: Path) -> None:
    assert write_outputs(report(cell(Verdict.FAIL)), None, {}) == []
    assert list(tmp_path.iterdir()) == []


def test_no_more_annotations_than_are_shown() -> None:
    cells = [cell(Verdict.FAIL, f"m{i}") for i in range(30)]
    lines = annotation_lines(report(*cells))
    assert len(lines) == 10 and lines[-1].endswith("::21 more are in the summary")
    assert annotation_lines(report(cell(Verdict.PASS))) == []


def test_trend_pages_get_numbers_of_the_head() -> None:
    found = report(cell(Verdict.FAIL), cell(Verdict.FAIL, "gone", head=None))
    (row,) = github_action_benchmark(found)
    assert (row["name"], row["unit"], row["value"]) == ("faces/casl", "EPR+", 4.0)
    assert bencher(found) == {
        "faces/casl": {
            "epr_plus": {"value": 4.0},
            "precision_log_ratio": {"value": -0.2, "lower_value": -0.3, "upper_value": -0.1},
        }
    }
