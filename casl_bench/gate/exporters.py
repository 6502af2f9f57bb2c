"""Feeds of trend pages: github-action-benchmark and Bencher."""

from __future__ import annotations

from typing import Any

from casl_bench.gate.gate_report import CellVerdict, GateReport
from casl_bench.gate.summary import change_text


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
