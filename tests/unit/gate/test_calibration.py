"""A/A runs show the noise that was put in, and a cell whose noise hides a loss is not gated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from casl_bench.gate.gate import Scope, gate
from casl_bench.gate.log_ratio import calibrate, measure, p_worse, resampled_log_ratios
from casl_bench.gate.run_side import FitScoreMatrix, RunSide
from casl_bench.gate.verdict import Verdict
from tests.support.scored_run import MadeUpMethod

MakeSide = Callable[..., RunSide]
METHODS = {
    "quiet": MadeUpMethod(fit_sd=0.03),
    "loud": MadeUpMethod(fit_sd=0.4),
    "fixed": MadeUpMethod(),
}
LOUD, QUIET, FIXED = ("made_up", "loud"), ("made_up", "quiet"), ("made_up", "fixed")


def test_only_cells_that_would_show_a_loss_are_gated(make_side: MakeSide) -> None:
    side = make_side("base", METHODS, fits=5)
    found = calibrate(side, runs=200)
    assert found.cells[FIXED].sd < 1e-9 and found.cells[FIXED].power == 1
    assert found.cells[QUIET].power > 0.8 and found.cells[LOUD].power < 0.4
    assert "A/A made_up/fixed: sd 0.000, false alarms 0.0 %" in "".join(found.notes())
    verdicts = {c.method: c for c in gate(side, side, Scope(), found)}
    assert verdicts["quiet"].verdict == verdicts["fixed"].verdict == Verdict.PASS
    assert verdicts["loud"].verdict == Verdict.INCONCLUSIVE
    assert "not gated: A/A: a 10 % loss would be seen in" in verdicts["loud"].reason
    assert found.why_underpowered(QUIET, 4) is not None


def test_a_single_fit_shows_no_noise(make_side: MakeSide) -> None:
    side = make_side("base", {"quiet": METHODS["quiet"]})
    (found,) = gate(side, side, Scope(), calibrate(side, runs=20))
    assert "the noise of a single fit is not known" in found.reason


def test_resampled_runs_vary_as_fits_do() -> None:
    fits = 3.0 + 0.1 * np.random.default_rng(0).standard_normal((1, 5, 200))
    scores = np.repeat(fits, 300, axis=0)
    ratios = resampled_log_ratios(scores, np.random.default_rng(1), 5)
    assert ratios.mean() == pytest.approx(0, abs=0.005)
    # Five fits of 200 concepts: their pooled sd is 0.1, and two sides differ by sqrt(2) of it.
    assert ratios.std() == pytest.approx(0.1 * 2**0.5, rel=0.05)


def test_p_values_are_those_of_the_gate(make_side: MakeSide) -> None:
    methods = (METHODS["quiet"], MadeUpMethod(damage=0.21, fit_sd=0.03, luck=1))
    sides = [make_side(f"run{k}", {"quiet": m}, fits=5) for k, m in enumerate(methods)]
    base, head = (FitScoreMatrix.read(side, side.edits[QUIET], range(5)) for side in sides)
    precision = measure(base, head, seed=0).precision
    assert precision is not None
    log_ratios = (head.precision - base.precision).mean(1)
    assert p_worse(log_ratios[None])[0] == pytest.approx(precision.p)
