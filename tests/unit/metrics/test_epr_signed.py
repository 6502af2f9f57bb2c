"""Signed EPR, on average and over the worst attribute, on cases worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.metrics.bootstrap import evaluate
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import EPR_RAW
from casl_bench.metrics.epr_plus import EPR_SIGNED, WORST_ATTRIBUTE_EPR

# Two images, three attributes; the target is column 0. In sd (spread 2, 1, 0.5):
# the target moves by +2 and +1, mean 1.5; column 1 by 0.5 and 0, mean 0.25; column 2 by 0 and
# 1, mean 0.5. The others' mean is 0.375, the worst is column 2.
BASE = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
EDIT = np.array([[4.0, 1.5, -1.0], [4.0, 0.0, -0.5]])
SPREAD = np.array([2.0, 1.0, 0.5])
SCORES = EditScores(BASE, BASE, EDIT, 0, 1, SPREAD)


def inverted(scores: EditScores) -> EditScores:
    return replace(scores, edit=2 * scores.base - scores.edit)


def test_hand_worked_example() -> None:
    assert EPR_SIGNED.value(SCORES) == pytest.approx(1.5 / 0.375)
    assert WORST_ATTRIBUTE_EPR.value(SCORES) == pytest.approx(1.5 / 0.5)


def test_the_inverted_edit_is_negative_although_the_papers_number_ties() -> None:
    assert EPR_SIGNED.value(inverted(SCORES)) == pytest.approx(-1.5 / 0.375)
    assert WORST_ATTRIBUTE_EPR.value(inverted(SCORES)) == pytest.approx(-1.5 / 0.5)
    assert EPR_RAW.value(inverted(SCORES)) == pytest.approx(EPR_RAW.value(SCORES))
    assert EPR_SIGNED.value(replace(SCORES, sign=-1)) == pytest.approx(-1.5 / 0.375)


def test_half_of_the_images_the_wrong_way_cancel() -> None:
    edit = BASE + np.array([[2.0, 0.5, 0.5], [-2.0, 0.5, 0.5]])
    assert EPR_SIGNED.value(replace(SCORES, edit=edit)) == 0


@pytest.mark.parametrize(
    ("noise", "mean", "worst"),
    [
        # sd that inversion moves columns 1 and 2 by, then the two ratios.
        ((0.1, 0.1), 1.5 / 0.375, 1.5 / 0.5),  # under what the edit moves: no change
        ((0.9, 0.1), 1.5 / 0.5, 1.5 / 0.5),  # mean floor 0.5; column 2's own floor is low
        ((0.1, 0.7), 1.5 / 0.4, 1.5 / 0.7),
    ],
)
def test_the_floor_is_the_least_denominator(
    noise: tuple[float, float], mean: float, worst: float
) -> None:
    source = BASE + np.array([9.0, *noise]) * SPREAD
    assert EPR_SIGNED.value(replace(SCORES, source=source)) == pytest.approx(mean)
    assert WORST_ATTRIBUTE_EPR.value(replace(SCORES, source=source)) == pytest.approx(worst)


def test_of_equally_damaged_attributes_the_largest_floor_counts() -> None:
    base = np.zeros((1, 3))
    source, edit = np.array([[0.0, 0.1, 2.0]]), np.array([[3.0, 0.5, -0.5]])
    for order in ([0, 1, 2], [0, 2, 1]):
        scores = EditScores(source[:, order], base, edit[:, order], 0, 1, np.ones(3))
        assert WORST_ATTRIBUTE_EPR.value(scores) == pytest.approx(3 / 2)


def test_no_change_is_zero_and_a_target_alone_is_undefined_without_a_floor() -> None:
    still = replace(SCORES, edit=BASE)
    alone = replace(SCORES, edit=BASE + np.array([1.0, 0.0, 0.0]))
    noisy = replace(alone, source=BASE + np.array([0.0, 0.5, 0.25]))
    for metric in (EPR_SIGNED, WORST_ATTRIBUTE_EPR):
        assert metric.value(still) == 0
        assert metric.value(alone) is None
        assert "nothing to divide by" in str(evaluate(metric, alone, 0).reason)
        assert metric.value(noisy) == pytest.approx(0.5 / 0.5)


def test_damage_that_is_averaged_away_shows_in_the_worst_attribute() -> None:
    """Twenty insensitive attributes dilute the mean; the worst one stays what it was."""
    pad = np.zeros((2, 20))
    wide = EditScores(
        *(np.hstack([x, pad]) for x in (BASE, BASE, EDIT)), 0, 1, np.append(SPREAD, np.ones(20))
    )
    assert EPR_SIGNED.value(wide) == pytest.approx(EPR_SIGNED.value(SCORES) * 11)  # type: ignore[operator]
    assert WORST_ATTRIBUTE_EPR.value(wide) == pytest.approx(WORST_ATTRIBUTE_EPR.value(SCORES))


def test_the_worst_attribute_is_found_anew_in_every_resample() -> None:
    """Each other attribute moves on one image only: which is the worst depends on the draw."""
    zeros, edit = np.zeros((2, 3)), np.array([[1.0, 1, 0], [1, 0, 0.5]])
    scores = EditScores(zeros, zeros, edit, 0, 1, np.ones(3))
    columns = WORST_ATTRIBUTE_EPR.per_image(scores)
    drawn = WORST_ATTRIBUTE_EPR.combine(np.array([[1.0, 0], [0.5, 0.5], [0, 1.0]]) @ columns)
    np.testing.assert_allclose(drawn, [1 / 1, 1 / 0.5, 1 / 0.5])


def test_one_image_has_a_value_and_no_interval() -> None:
    for metric in (EPR_SIGNED, WORST_ATTRIBUTE_EPR):
        one = evaluate(metric, SCORES.take([0]), 0)
        assert one.value is not None and one.low is None and one.n == 1


def test_an_attribute_by_itself_has_no_worst_other() -> None:
    lonely = EditScores(BASE[:, :1], BASE[:, :1], EDIT[:, :1], 0, 1, SPREAD[:1])
    assert EPR_SIGNED.value(lonely) is None and WORST_ATTRIBUTE_EPR.value(lonely) is None
