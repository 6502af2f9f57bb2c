"""How often the gate errs where the truth is known: fits that vary by a normal on the gate's scale.

On stored scores of real fits: `casl-bench study gate-rates RUN`, docs/regression_gate.md.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from casl_bench.analysis.significance import holm
from casl_bench.gate.log_ratio import p_worse, would_fail
from casl_bench.gate.verdict import ALPHA, LOSS, TOLERATED
from casl_bench.metrics.edit_scores import Array

RUNS, FITS = 2000, 5
SLACK = 3 * math.sqrt(0.05 * 0.95 / RUNS)


def thetas(sd: float, mean: float = 0.0, seed: int = 0) -> Array:
    """[RUNS, FITS] log ratios of paired fits, means over concepts."""
    return mean + sd * np.random.default_rng(seed).standard_normal((RUNS, FITS))


@pytest.mark.parametrize("sd", [0.01, 0.05, 0.2, 1.0])
def test_one_cell_is_a_false_alarm_in_five_per_cent_at_most(sd: float) -> None:
    assert would_fail(thetas(sd)).mean() <= 0.05 + SLACK


@pytest.mark.parametrize("sd", [0.05, 1.0])
def test_so_are_twelve_cells_together(sd: float) -> None:
    cells = [thetas(sd, seed=cell) for cell in range(12)]
    adjusted = np.array([holm(list(p)) for p in zip(*map(p_worse, cells), strict=True)])
    small = np.array([cell.mean(1) < LOSS for cell in cells]).T
    alarms = ((adjusted <= ALPHA) & small).any(1)
    unadjusted = np.array([p_worse(cell) <= ALPHA for cell in cells]).any(0)
    assert alarms.mean() <= 0.05 + SLACK
    assert unadjusted.mean() > 0.3


def test_a_loss_of_ten_per_cent_is_seen_where_fits_vary_by_five() -> None:
    assert would_fail(thetas(0.05, TOLERATED)).mean() >= 0.8
    assert would_fail(thetas(0.2, TOLERATED)).mean() < 0.4
