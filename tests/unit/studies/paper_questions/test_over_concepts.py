"""Means and ratios over concepts with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from casl_bench.metrics.epr_plus import signed_log
from casl_bench.studies.paper_questions.answers import Over, from_signed_log, mean_over, share_of


def test_the_mean_has_students_interval() -> None:
    values = [1.0, 2.0, 4.0, 7.0]
    found = mean_over(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.value, found.n) == (3.5, 4)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_concept_or_none_has_no_interval() -> None:
    assert mean_over([2.0]) == Over(2.0, None, None, 1)
    assert mean_over([]) == Over(None, None, None, 0)
    assert mean_over([]).text() == "—"


def test_a_share_is_the_ratio_of_sums() -> None:
    found = share_of([1.0, 1.0, 4.0], [2.0, 2.0, 8.0])
    assert found.value == 0.5
    assert share_of([1.0, 0.0], [0.01, 2.0]).value == pytest.approx(1 / 2.01)
    spread = share_of([1.0, 0.2, 0.8, 0.4], [1.0, 1.0, 1.0, 1.0])
    assert spread.low is not None and spread.high is not None
    assert spread.low < 0.6 < spread.high


def test_a_share_of_nothing_is_none() -> None:
    assert share_of([1.0, 2.0], [0.0, 0.0]).value is None
    assert share_of([1.0], [-1.0]).value is None
    assert share_of([1.0], [2.0]) == Over(0.5, None, None, 1)


def test_logs_come_back_as_ratios() -> None:
    found = from_signed_log(mean_over([signed_log(3.0), signed_log(3.0), signed_log(-3.0)]))
    assert found.value == pytest.approx(4 ** (1 / 3) - 1)
    assert from_signed_log(Over(None, None, None, 0)).value is None


def test_which_side_of_zero() -> None:
    assert mean_over([1.0, 1.1, 0.9]).above_zero is True
    assert mean_over([-1.0, -1.1, -0.9]).above_zero is False
    assert mean_over([1.0, -1.0]).above_zero is None
    assert mean_over([1.0]).above_zero is None
