"""Scorer validation on known edits: cases by hand, and faults in a perfect scorer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.scorer_validation import (
    calibration_error,
    flipped_labels,
    leakage,
    leakage_share,
    response,
)

# Two pictures, two attributes. Column 0 has both classes: there 3, absent -1, a gap of 4.
LABELS = np.array([[True, False], [False, False]])
ORIGINALS = np.array([[3.0, -2.0], [-1.0, -1.0]])
# Row 0 flips attribute 0: +3 -> -1 and -1 -> +1, while attribute 1 leaks by +0.5 and -1.
EDITS = np.array([[[-1.0, -1.5], [1.0, -2.0]], [[3.0, 2.0], [-3.0, 1.0]]])
SPREAD = np.array([2.0, 0.5])
SHAPE = (60, 4)


def perfect(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits and logits of known edits of a scorer that reads 3 or -3, and noise."""
    rng = np.random.default_rng(0)
    labels = rng.random(SHAPE) < 0.5
    edits = np.where(flipped_labels(labels), 3.0, -3.0)
    return (
        labels,
        np.where(labels, 3.0, -3.0) + noise * rng.normal(size=SHAPE),
        edits + noise * rng.normal(size=edits.shape),
    )


def test_slope_is_the_signed_change_over_the_distance_of_the_classes() -> None:
    found = response(ORIGINALS, EDITS, LABELS, SPREAD)
    # Off by 4 in the one picture, on by 2 in the other: mean 3 of a gap of 4.
    assert found.slope[0] == pytest.approx(3 / 4)
    assert math.isnan(found.slope[1]), "no picture has attribute 1"
    assert found.flips_seen.tolist() == [1, 1]


def test_leakage_is_what_the_others_move_in_their_own_spread() -> None:
    found = response(ORIGINALS, EDITS, LABELS, SPREAD)
    assert found.leakage == pytest.approx(
        np.array([[0, (0.5 + 1) / 2 / 0.5], [(0 + 2) / 2 / 2, 0]])
    )
    assert found.mean_leakage == pytest.approx([1.5, 0.5])
    assert np.array_equal(found.leakage, leakage(ORIGINALS, EDITS, SPREAD))


def test_correlation_agrees_with_numpy() -> None:
    truth = np.array([[[-1, 0], [1, 0]], [[0, 1], [0, 1]]])
    measured = (EDITS - ORIGINALS) / SPREAD
    expected = np.corrcoef(truth.ravel(), measured.ravel())[0, 1]
    assert response(ORIGINALS, EDITS, LABELS, SPREAD).correlation == pytest.approx(expected)


def test_calibration_error_worked_by_hand() -> None:
    p = np.array([0.1, 0.12, 0.9, 0.95])
    logits = np.log(p / (1 - p))[:, None]
    targets = np.array([[0.0], [1.0], [1.0], [0.5]])
    # Three bins of fifteen: |0.22 - 1|, |0.9 - 1| and |0.95 - 0.5|, over four images.
    assert calibration_error(logits, targets) == pytest.approx([(0.78 + 0.1 + 0.45) / 4])


def test_calibration_of_extreme_logits_is_finite() -> None:
    found = calibration_error([[1e4, -1e4, 1e4]], [[1, 0, 0]])
    assert found == pytest.approx([0, 0, 1])


def test_a_calibrated_scorer_has_little_error_and_a_bold_one_much() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20_000, 1))
    labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    assert calibration_error(logits, labels)[0] < 0.02
    assert calibration_error(4 * logits, labels)[0] > 0.1


def test_edits_are_labelled_with_their_flip() -> None:
    assert flipped_labels(LABELS).tolist() == [
        [[False, False], [True, False]],
        [[True, True], [False, True]],
    ]


def test_a_perfect_scorer_is_found_perfect() -> None:
    labels, originals, edits = perfect()
    found = response(originals, edits, labels, originals.std(0))
    assert calibration_error(originals, labels) == pytest.approx(1 / (1 + math.exp(3)))
    assert found.flips_seen.tolist() == [1, 1, 1, 1]
    assert found.slope == pytest.approx(1)
    assert found.correlation > 0.999
    assert not found.leakage.any()


def test_planted_faults_are_seen_where_they_are() -> None:
    labels, originals, edits = perfect(noise=0.1)
    spread = originals.std(0)
    clean = response(originals, edits, labels, spread)

    deaf = edits.copy()
    deaf[2, :, 2] = originals[:, 2]
    found = response(originals, deaf, labels, spread)
    assert found.slope[2] == 0 and found.flips_seen[2] == 0
    assert found.slope[[0, 1, 3]] == pytest.approx(clean.slope[[0, 1, 3]])
    assert found.correlation < clean.correlation - 0.05

    leaky = edits.copy()
    leaky[1, :, 3] += np.where(labels[:, 1], -2.0, 2.0)
    found = response(originals, leaky, labels, spread)
    assert np.unravel_index(found.leakage.argmax(), (4, 4)) == (1, 3)
    assert found.leakage[1, 3] == pytest.approx(2 / spread[3], rel=0.1)
    assert found.mean_leakage.argmax() == 1

    blurred = originals.copy()
    blurred[:30, 0] *= -1
    assert calibration_error(blurred, labels).argmax() == 0


def test_the_logits_scale_is_no_merit() -> None:
    labels, originals, edits = perfect(noise=0.5)
    scale = np.array([1.0, 10.0, 0.1, 3.0])
    one = response(originals, edits, labels, originals.std(0))
    two = response(originals * scale, edits * scale, labels, (originals * scale).std(0))
    assert two.slope == pytest.approx(one.slope)
    assert two.leakage == pytest.approx(one.leakage)
    assert two.correlation == pytest.approx(one.correlation)


def test_the_order_of_images_does_not_matter() -> None:
    labels, originals, edits = perfect(noise=0.5)
    order = np.random.default_rng(2).permutation(len(labels))
    one = response(originals, edits, labels, originals.std(0))
    two = response(originals[order], edits[:, order], labels[order], originals.std(0))
    assert two.slope == pytest.approx(one.slope)
    assert two.correlation == pytest.approx(one.correlation)
    assert calibration_error(originals[order], labels[order]) == pytest.approx(
        calibration_error(originals, labels)
    )


def test_a_scorer_that_never_moves_has_no_correlation() -> None:
    labels, originals, _ = perfect()
    found = response(originals, np.stack([originals] * 4), labels, originals.std(0))
    assert math.isnan(found.correlation) and not found.slope.any()


def test_a_scorer_whose_classes_lie_the_wrong_way_has_no_slope() -> None:
    labels, originals, edits = perfect()
    assert np.isnan(response(-originals, -edits, labels, originals.std(0)).slope).all()


def test_one_image_is_enough_for_all_but_the_slope() -> None:
    found = response(ORIGINALS[:1], EDITS[:, :1], LABELS[:1], SPREAD)
    assert np.isnan(found.slope).all()
    assert found.leakage == pytest.approx(np.array([[0, 1], [0, 0]]))


@pytest.mark.parametrize(
    ("oracle", "method", "share"),
    [(0.1, 0.4, 0.25), (0.4, 0.1, 1), (0, 0.3, 0), (0, 0, None), (0.2, 0, None)],
)
def test_share_of_collateral_that_is_the_scorers_own(
    oracle: float, method: float, share: float | None
) -> None:
    assert leakage_share(oracle, method) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize("pair", [(-0.1, 1), (1, -0.1), (math.nan, 1), (1, math.inf)])
def test_changes_that_cannot_be_are_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="not negative"):
        leakage_share(*pair)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS.astype(int)}, "bool"),
        ({"labels": LABELS[:0]}, "at least one row"),
        ({"originals": ORIGINALS[:1]}, "shape"),
        ({"oracle_edits": EDITS[:1]}, "shape"),
        ({"originals": np.where(ORIGINALS == 3, np.nan, ORIGINALS)}, "NaN"),
        ({"oracle_edits": np.where(EDITS == 3, np.inf, EDITS)}, "NaN or infinity"),
        ({"spread": [1, 0]}, "positive"),
    ],
)
def test_bad_input_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    given = {
        "originals": ORIGINALS, "oracle_edits": EDITS, "labels": LABELS, "spread": SPREAD,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        response(**(given | change))


def test_a_single_attribute_leaks_nowhere_and_is_refused() -> None:
    with pytest.raises(InputError, match="leaves alone"):
        leakage(ORIGINALS[:, :1], EDITS[:1, :, :1], SPREAD[:1])


@pytest.mark.parametrize("targets", [[[2.0]], [[-0.1]]])
def test_targets_outside_their_range_are_refused(targets: list[list[float]]) -> None:
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        calibration_error([[0.0]], targets)
