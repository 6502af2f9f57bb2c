"""EPR on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import EPR_FLOORED, EPR_RAW, EPR_STD

# Two images, three attributes; the target is column 0.
BASE = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
EDIT = np.array([[3.0, 1.5, -1.0], [1.0, 0.0, 0.5]])
# |change| of the target: 3 and 1, mean 2. Of the others: means 0.25 and 0.25.


def scores(source: np.ndarray, edit: np.ndarray = EDIT, spread: object = (1, 1, 1)) -> EditScores:
    return EditScores(source, BASE, edit, 0, 1, np.array(spread, dtype=float))


def epr(base: np.ndarray, edit: np.ndarray) -> float:
    """EPR of column 0 where inversion loses nothing."""
    value = EPR_RAW.value(EditScores(base, base, edit, 0, 1, np.ones(base.shape[1])))
    assert value is not None
    return value


def test_hand_worked_example() -> None:
    assert epr(BASE, EDIT) == pytest.approx(2 / (0.25 + 1e-8))


def test_an_edit_the_wrong_way_scores_the_same() -> None:
    assert epr(BASE, 2 * BASE - EDIT) == pytest.approx(epr(BASE, EDIT))


def test_a_precise_edit_beats_one_that_moves_everything() -> None:
    only_target = BASE + np.array([1.0, 0.01, 0.01])
    everything = BASE + np.array([1.0, 1.0, 1.0])
    assert epr(BASE, only_target) > epr(BASE, everything)


def test_insensitive_others_raise_it() -> None:
    """Why the list of others is part of what the number means."""
    pad = np.zeros((2, 5))
    assert epr(np.hstack([BASE, pad]), np.hstack([EDIT, pad])) > 2 * epr(BASE, EDIT)


def test_standardised_epr_divides_by_the_spread() -> None:
    expected = (2 / 2) / ((0.25 / 1 + 0.25 / 0.5) / 2 + 1e-8)
    assert EPR_STD.value(scores(BASE, spread=(2, 1, 0.5))) == pytest.approx(expected)


def test_one_image_is_enough() -> None:
    assert epr(BASE[:1], EDIT[:1]) == pytest.approx(3 / (0.25 + 1e-8))


def test_a_denominator_under_the_floor_is_undefined_with_its_reason() -> None:
    noisy_source = BASE + np.array([0.0, 0.3, -0.3])
    for metric in (EPR_RAW, EPR_STD):
        assert metric.value(scores(noisy_source)) is None
        reason = metric.undefined(scores(noisy_source))
        assert reason is not None and "noise floor" in reason and "0.25" in reason
        assert metric.value(scores(BASE)) == pytest.approx(8)


def test_no_edit_is_undefined_not_zero() -> None:
    assert EPR_RAW.value(scores(BASE, edit=BASE)) is None


def test_the_floor_of_the_standardised_ratio_is_standardised() -> None:
    # Column 1 has a huge spread: its reconstruction error counts for nothing in sd.
    source = BASE + np.array([0.0, 2.0, 0.0])
    assert EPR_RAW.value(scores(source)) is None
    assert EPR_STD.value(scores(source, spread=(1, 1000, 1))) is not None


def test_floored_epr_never_divides_by_less_than_inversion_moves() -> None:
    source = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    base = source + np.array([0.0, 0.4, -0.2])  # the floor: others move by 0.3
    spread = np.ones(3)
    for others, expected in ((0.1, 2 / 0.3), (0.5, 2 / 0.5)):
        edit = base + np.array([2.0, others, others])
        scores = EditScores(source, base, edit, 0, 1, spread)
        assert EPR_FLOORED.value(scores) == pytest.approx(expected)
        raw = EPR_RAW.value(scores)
        assert raw is None or raw == pytest.approx(expected)
