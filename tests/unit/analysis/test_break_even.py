"""Break-even of two methods' costs: worked by hand, and where concepts say different things."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casl_bench.analysis.cost import Spending, break_even
from casl_bench.core.errors import InputError


def spending(fixed: list[float], edit: list[float]) -> Spending:
    return Spending(np.array(fixed), np.array(edit))


def test_it_is_where_the_lines_cross() -> None:
    dear = spending([100.0, 100.0], [1.0, 1.0])
    cheap = spending([20.0, 20.0], [3.0, 3.0])
    found = break_even(dear, cheap)
    assert (found.verdict, found.edits) == ("from", 40.0)
    assert (found.low, found.high) == (40.0, 40.0)
    assert break_even(cheap, dear).verdict == "up to"
    assert break_even(cheap, dear).edits == 40.0


def test_who_is_cheaper_in_both_is_always_cheaper() -> None:
    cheap, dear = spending([1.0], [1.0]), spending([2.0], [1.0])
    assert break_even(cheap, dear).verdict == "always"
    assert break_even(dear, cheap).verdict == "never"
    assert break_even(dear, cheap).edits is None


def test_one_concept_gives_no_interval() -> None:
    found = break_even(spending([10.0], [1.0]), spending([5.0], [2.0]))
    assert (found.verdict, found.edits, found.low, found.high) == ("from", 5.0, None, None)


def test_it_is_open_where_concepts_disagree() -> None:
    a = spending([10.0, 10.0, 10.0, 10.0], [1.0, 5.0, 1.0, 5.0])
    b = spending([5.0, 5.0, 5.0, 5.0], [3.0, 3.1, 3.0, 3.1])
    assert break_even(a, b).verdict == "open"


def test_it_is_the_ratio_of_means_and_not_the_mean_of_ratios() -> None:
    a = spending([30.0, 10.0], [1.0, 1.0])
    b = spending([10.0, 0.0], [2.0, 3.0])
    assert break_even(a, b).edits == pytest.approx(15.0 / 1.5)


costs = st.lists(
    st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3)),
    min_size=1, max_size=5,
)  # fmt: skip


@given(costs)
def test_at_break_even_both_have_cost_the_same(rows: list[tuple[float, ...]]) -> None:
    table = np.array(rows)
    a, b = Spending(table[:, 0], table[:, 1]), Spending(table[:, 2], table[:, 3])
    found = break_even(a, b)
    if found.edits is not None:
        total_a, total_b = (s.fixed.mean() + found.edits * s.edit.mean() for s in (a, b))
        assert total_a == pytest.approx(total_b, rel=1e-6, abs=1e-6)
        assert found.edits >= 0


@pytest.mark.parametrize("fixed", [[], [-1.0], [float("nan")], [1.0, 2.0]])
def test_no_costs_but_costs(fixed: list[float]) -> None:
    with pytest.raises(InputError):
        spending(fixed, [1.0])


def test_other_concepts_are_no_comparison() -> None:
    with pytest.raises(InputError, match="2 and 1 concepts"):
        break_even(spending([1.0, 2.0], [1.0, 1.0]), spending([1.0], [1.0]))
