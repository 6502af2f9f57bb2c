"""All outputs of a gate run, written whatever its end was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from casl_bench.core.files import write_json, write_text
from casl_bench.gate.annotations import annotation_lines
from casl_bench.gate.exporters import bencher, github_action_benchmark
from casl_bench.gate.gate_report import GateReport
from casl_bench.gate.junit import junit_xml
from casl_bench.gate.summary import summary_markdown


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
