"""Rank correlation against SciPy's, and its mean over concepts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from casl_bench.core.errors import InputError
from casl_bench.studies.metric_validity.ranking import mean_over_concepts, rank_correlation, ranks

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


@given(PAIRS)
def test_agrees_with_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    np.testing.assert_allclose(ranks(a), rankdata(a))
    found = rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic)


def test_any_rising_function_keeps_it() -> None:
    a = np.array([0.1, 3.0, 0.7, 2.0])
    assert rank_correlation(a, np.exp(a)) == 1
    assert rank_correlation(a, -a) == -1


def test_one_pair_has_none() -> None:
    assert rank_correlation([1.0], [2.0]) is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="pairs"):
        rank_correlation([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="NaN"):
        rank_correlation([1.0, np.nan], [1.0, 2.0])


def test_the_mean_leaves_out_what_is_undefined() -> None:
    found = mean_over_concepts([0.5, None, 1.0], seed=0)
    assert (found.value, found.concepts) == (0.75, 2)
    assert found.interval is not None and found.interval[0] < 0.75 < found.interval[1]


def test_one_concept_or_agreement_has_no_interval() -> None:
    assert mean_over_concepts([0.5, None], seed=0).interval is None
    assert mean_over_concepts([0.5, 0.5], seed=0).interval is None
    assert mean_over_concepts([None], seed=0).value is None
