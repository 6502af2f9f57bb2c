"""The gate as JUnit XML: a suite a data set, a test a method, as every CI shows them."""

from __future__ import annotations

from casl_bench.gate.gate_report import CellVerdict, GateReport
from casl_bench.gate.verdict import Verdict


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
