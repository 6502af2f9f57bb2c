"""Two folders → a report, whatever happens on the way: a fault is a report without a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from casl_bench.core.errors import BenchError
from casl_bench.gate.calibration import Calibration, calibrate
from casl_bench.gate.exact import compare_exactly
from casl_bench.gate.gate import Scope, gate, precision_of
from casl_bench.gate.gate_report import Alert, CellVerdict, GateReport, SideInfo
from casl_bench.gate.run_side import RunSide, is_run, read_side
from casl_bench.gate.speed import speed_alerts
from casl_bench.gate.summary import headline
from casl_bench.gate.verdict import ALPHA, EXIT_OPEN, EXIT_PASSED, Verdict, exit_code

Tier = Literal["statistical", "exact", "both"]

_ORDER = tuple(Verdict)


@dataclass(frozen=True)
class GateOptions:
    """How to gate.

    Attributes:
        tier: see the module of each.
        scope: what is gated.
        calibrate_runs: A/A runs to draw; 0 for no calibration.
        allow_missing_base: a first run, without a base, is no failure.
        speed: files of pytest-benchmark, of base and head.
        alpha: see `decide`.
    """

    tier: Tier = "statistical"
    scope: Scope = field(default_factory=Scope)
    calibrate_runs: int = 0
    allow_missing_base: bool = False
    speed: tuple[Path, Path] | None = None
    alpha: float = ALPHA


def gate_folders(
    base: Path, head: Path, options: GateOptions, notes: Sequence[str] = ()
) -> GateReport:
    """The report on two run folders.

    Args:
        base: folder of the base; there is none yet if it holds no record.
        head: folder of the head.
        options: how to gate.
        notes: to put into the report.

    Raises:
        UsageError: if the head holds no record, or a benchmark file cannot be read.
        InvalidBenchmarkError: if a side cannot be believed.
    """
    alerts = speed_alerts(*options.speed) if options.speed is not None else []
    head_side = read_side(head)
    if not is_run(base):
        return first_run_report(head_side, options, f"no base to compare with: {base}")
    base_side = read_side(base)
    cells: list[CellVerdict] = []
    told = list(notes)
    if options.tier in ("exact", "both"):
        cells += compare_exactly(base_side, head_side, options.scope)
    if options.tier in ("statistical", "both"):
        calibration = None
        if options.calibrate_runs:
            calibration = calibrate(base_side, options.calibrate_runs)
            told += calibration_notes(calibration)
        cells += gate(base_side, head_side, options.scope, calibration, options.alpha)
    told += _single_fits(cells)
    return _report(options, cells, alerts, told, base_side, head_side)


def first_run_report(head: RunSide, options: GateOptions, note: str) -> GateReport:
    """The report where there is no base: every cell is new.

    Args:
        head: the run.
        options: how it would have been gated.
        note: why there is no base.
    """
    code = EXIT_PASSED if options.allow_missing_base else EXIT_OPEN
    cells = tuple(
        CellVerdict(
            dataset=name[0],
            method=name[1],
            verdict=Verdict.NEW,
            reason="first run",
            head=precision_of(head, name, options.scope),
        )
        for name in head.edits
    )
    return GateReport(
        tier=options.tier,
        exit_code=code,
        headline=f"casl_bench gate: first run, {note} (exit {code})",
        head=side_info(head),
        cells=cells,
    )


def error_report(error: BenchError, tier: str) -> GateReport:
    """The report where there is no verdict.

    Args:
        error: why.
        tier: asked for.
    """
    return GateReport(
        tier=tier,
        exit_code=error.exit_code,
        headline=headline(error.exit_code, (), str(error)),
        error=str(error),
    )


def _report(
    options: GateOptions,
    cells: Sequence[CellVerdict],
    alerts: Sequence[Alert],
    notes: Sequence[str],
    base: RunSide,
    head: RunSide,
) -> GateReport:
    code = exit_code(c.verdict for c in cells)
    ordered = sorted(cells, key=lambda c: _ORDER.index(c.verdict))
    return GateReport(
        tier=options.tier,
        exit_code=code,
        headline=headline(code, ordered),
        base=side_info(base),
        head=side_info(head),
        cells=tuple(ordered),
        alerts=tuple(alerts),
        notes=tuple(notes),
    )


def side_info(side: RunSide) -> SideInfo:
    """Which run a side is of; no folders of anybody's machine."""
    some = next((r for r in side.records if r.kind == "edit"), side.records[0])
    commits = {r.provenance.git_commit for r in side.records}
    dirty = {r.provenance.git_dirty for r in side.records}
    return SideInfo(
        where=side.where.name or str(side.where),
        commit=commits.pop() if len(commits) == 1 else None,
        dirty=None if dirty == {None} else True in dirty,
        suite=f"{some.suite.name} v{some.suite.version}",
    )


def calibration_notes(calibration: Calibration) -> list[str]:
    """What A/A runs showed, in a sentence a cell."""
    return [
        f"A/A {dataset}/{method}: sd {noise.sd:.3f}, "
        f"false alarms {100 * noise.false_alarms:.1f} %, "
        f"a 10 % loss seen in {100 * noise.power:.0f} % of {noise.runs} runs "
        f"with {calibration.fits} paired fits drawn from {noise.fits}"
        for (dataset, method), noise in calibration.cells.items()
    ]


def _single_fits(cells: Sequence[CellVerdict]) -> list[str]:
    """Where the bounds hold for other images only."""
    single = [c for c in cells if c.fits == 1 and any(e.varies_by == "images" for e in c.effects)]
    if not single:
        return []
    names = ", ".join(sorted({c.method for c in single}))
    return [
        f"One fit each, taken for one without random numbers: {names}. If a fit draws some, name "
        "the method under --stochastic and run base and head with --fit-seeds 5."
    ]
