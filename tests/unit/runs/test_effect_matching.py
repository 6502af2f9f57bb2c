"""Which strength has an effect: hand-worked crossings, and what must hold of any response."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.equal_effect import (
    area,
    precision,
    precision_area,
    strength_at_effect,
)
from casl_bench.runs.strength import is_monotone

GRID = (0.5, 1.0, 2.0)
few = settings(max_examples=50)


@pytest.mark.parametrize(
    ("effects", "goal", "status", "strength"),
    [
        ([1.0, 2.0, 3.0], 0.5, "reached", 0.25),  # between nothing and the first
        ([1.0, 2.0, 3.0], 2.5, "reached", 1.5),
        ([1.0, 2.0, 3.0], 3.0, "reached", 2.0),
        ([1.0, 2.0, 3.0], 3.01, "not_reached", None),  # never extrapolated
        ([3.0, 0.0, 3.0], 1.5, "reached", 0.25),  # the first crossing
        ([-1.0, -2.0, -3.0], 1.0, "wrong_way", 0.5),
        ([-1.0, -2.0, 3.0], 1.0, "reached", 1.6),  # right in the end
        ([0.0, 0.0, 0.0], 1.0, "not_reached", None),
    ],
)
def test_hand_worked_crossings(
    effects: list[float], goal: float, status: str, strength: float | None
) -> None:
    found = strength_at_effect(GRID, effects, goal)
    assert (found.status, found.strength) == (status, pytest.approx(strength))
    assert found.largest == max(effects)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.01, 5))
@few
def test_a_crossing_is_where_the_broken_line_has_the_goal(
    effects: list[float], goal: float
) -> None:
    found = strength_at_effect(GRID, effects, goal)
    line = np.interp(np.linspace(0, 2, 4001), [0.0, *GRID], [0.0, *effects])
    assert (found.status == "reached") == bool(max(effects) >= goal)
    if found.status == "reached":
        assert found.strength is not None and 0 < found.strength <= GRID[-1]
        before = line[np.linspace(0, 2, 4001) < found.strength - 1e-3]
        assert (before < goal).all()
    if found.status == "wrong_way":
        assert min(effects) <= -goal


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.01, 5), st.floats(0.1, 9))
@few
def test_a_crossing_does_not_depend_on_the_unit(
    effects: list[float], goal: float, unit: float
) -> None:
    one = strength_at_effect(GRID, effects, goal)
    other = strength_at_effect(GRID, [unit * e for e in effects], unit * goal)
    if abs(max(map(abs, effects)) - goal) > 1e-9:  # a tie may round either way
        assert one.status == other.status
        assert one.strength == pytest.approx(other.strength, abs=2e-6)


def test_what_is_no_response_is_refused() -> None:
    for strengths, effects, goal in (
        ((1.0, 0.5), [1, 2], 1),
        ((0.0, 1.0), [1, 2], 1),
        ((), [], 1),
        (GRID, [1, 2], 1),
        (GRID, [1, 2, np.nan], 1),
        (GRID, [1, 2, np.inf], 1),
        (GRID, [1, 2, 3], 0),
    ):
        with pytest.raises(InputError):
            strength_at_effect(strengths, effects, goal)


def test_a_response_that_falls_is_flagged_and_a_ripple_is_not() -> None:
    assert is_monotone(np.array([1, 2, 3]), 3) and is_monotone(np.array([1, 0.9, 3]), 3)
    assert not is_monotone(np.array([1, 0.8, 3]), 3)
    assert not is_monotone(np.array([-0.2, 1, 3]), 3)  # it starts at 0


def test_precision_is_bounded_signed_and_epr_on_another_scale() -> None:
    found = precision(np.array([3.0, -3.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    assert found.tolist() == [0.75, -0.75, 0.0]
    epr = 3.0 / 1.0
    assert found[0] == epr / (1 + epr)


def test_the_area_is_a_mean_height() -> None:
    assert area([0.25, 0.5, 0.75], np.array([0.8, 0.8, 0.8])) == pytest.approx(0.8)
    assert area([0.25, 0.5, 0.75], np.array([0.8, 0.6, 0.0])) == pytest.approx(0.5)
    for effects, values in (([0.5], [1.0]), ([0.5, 0.25], [1.0, 1.0]), ([0.2, 0.4], [1.0])):
        with pytest.raises(InputError):
            area(effects, np.array(values))


def scores(target: float, others: float, n: int = 8, noise: float = 0.1) -> EditScores:
    rng = np.random.default_rng(0)
    base = np.zeros((n, 3))
    change = np.array([target, others, others]) + noise * rng.normal(size=(n, 3))
    return EditScores(base, base, base + change, 0, 1, np.ones(3))


def test_precision_area_of_levels_counts_one_that_is_not_reached_as_nothing() -> None:
    whole = precision_area((0.25, 0.5, 0.75), [scores(3, 1, noise=0)] * 3, 0)
    assert whole.value == pytest.approx(0.75)
    part = precision_area((0.25, 0.5, 0.75), [scores(3, 1, noise=0)] * 2 + [None], 0)
    assert part.value == pytest.approx(0.75 * 0.75)
    noisy = precision_area((0.25, 0.5, 0.75), [scores(3, 1)] * 3, 0)
    assert noisy.low is not None and noisy.value is not None and noisy.high is not None
    assert noisy.low < noisy.value < noisy.high
    assert precision_area((0.25, 0.5), [scores(3, 1, n=1)] * 2, 0).low is None
    assert precision_area((0.25, 0.5), [None, None], 0).value is None
    with pytest.raises(InputError, match="different images"):
        precision_area((0.25, 0.5), [scores(3, 1, n=4), scores(3, 1, n=5)], 0)
