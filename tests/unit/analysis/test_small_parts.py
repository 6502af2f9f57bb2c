"""Signed log, agreement of orders, what rank 1 rests on, spread between fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from casl_bench.analysis.comparison import fit_sd
from casl_bench.analysis.significance import kendall_tau
from casl_bench.metrics.epr_plus import signed_exp, signed_log

FINITE = st.floats(-1e6, 1e6)


@given(FINITE, FINITE)
def test_the_signed_log_keeps_the_order_and_has_an_inverse(a: float, b: float) -> None:
    if a < b:
        assert signed_log(a) <= signed_log(b)
        if b - a > 1e-6 * max(1, abs(a), abs(b)):
            assert signed_log(a) < signed_log(b)
    assert signed_exp(signed_log(a)) == pytest.approx(a, rel=1e-9, abs=1e-12)


def test_the_signed_log_by_hand() -> None:
    assert signed_log(0.0) == 0
    assert signed_log(np.e - 1) == pytest.approx(1)
    assert signed_log(1 - np.e) == pytest.approx(-1)
    wrong_way, not_reached, barely, well = signed_log(np.array([-3.0, 0.0, 1e-9, 3.0]))
    assert wrong_way < not_reached < barely < well
    assert np.isnan(signed_log(np.array([np.nan]))).all()


def test_an_interval_beyond_every_number_ends_at_the_largest() -> None:
    """A mean of few logs has an interval whose ends are no float on the scale of EPR+."""
    largest = np.finfo(float).max
    with np.errstate(all="raise"):
        ends = signed_exp(np.array([-1e4, 5.0, 1e4]))
    assert ends[[0, 2]] == pytest.approx([-largest, largest]) and np.isfinite(ends).all()
    assert ends[1] == pytest.approx(np.e**5 - 1)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_kendalls_tau_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = ([p[k] for p in pairs] for k in (0, 1))
    ours = kendall_tau(a, b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert ours is None
    else:
        assert ours == pytest.approx(kendalltau(a, b).statistic, abs=1e-12)


def test_kendalls_tau_by_hand() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)  # (2 - 1) / 3
    assert kendall_tau([1, 2, 3], [1, 1, 2]) == pytest.approx(2 / np.sqrt(3 * 2))
    assert kendall_tau([7], [7]) is None


def test_spread_between_fits() -> None:
    assert fit_sd([[0, 2], [1, 3], [2, 4]]) == 1  # means over concepts 1, 2 and 3
    assert fit_sd([[1.0, 2.0]]) is None
    assert fit_sd(np.full((3, 7), 0.1)) == 0
