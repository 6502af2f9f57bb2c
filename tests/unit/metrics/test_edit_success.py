"""Direction-aware numbers on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import casl_bench.metrics.image_similarity  # noqa: F401 - registers what is asked for below
from casl_bench.core.errors import InputError
from casl_bench.metrics import edit_success as success
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.metric import METRICS

BASE = np.array([[-2.0, 1.0], [-1.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
EDIT = np.array([[1.0, 1.0], [-2.0, 1.0], [3.0, 1.0], [0.5, 0.0]])
# Target (column 0) changes: +3, -1, +2, +0.5. Wrong side before: images 0, 1, 3; flipped: 0, 3.
SPREAD = np.array([2.0, 4.0])


def scores(sign: int = 1, **changes: object) -> EditScores:
    return EditScores(BASE, BASE, EDIT, 0, sign, SPREAD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "sign", "expected"),
    [
        ("signed_target_change", 1, (3 - 1 + 2 + 0.5) / 4 / 2),
        ("signed_target_change", -1, -(3 - 1 + 2 + 0.5) / 4 / 2),
        ("mean_collateral", 1, (0 + 1 + 1 + 0) / 4 / 4),
        ("flip_rate", 1, 2 / 3),
        ("flip_rate", -1, 0.0),  # images 2 and 3 have it to lose, and kept it
        ("wrong_way_rate", 1, 1 / 4),
        ("wrong_way_rate", -1, 3 / 4),
    ],
)
def test_hand_worked_example(name: str, sign: int, expected: float) -> None:
    assert METRICS.create(name).value(scores(sign)) == pytest.approx(expected)


def test_flip_rate_counts_the_images_that_could_flip() -> None:
    assert success.FLIP_RATE.count(scores()) == 3
    assert success.FLIP_RATE.count(scores(-1)) == 2  # image 3 lies on the boundary


def test_flip_rate_without_an_eligible_image_is_undefined() -> None:
    everywhere = EditScores(BASE, np.abs(BASE) + 1, EDIT, 0, 1, SPREAD)
    assert success.FLIP_RATE.value(everywhere) is None
    assert success.FLIP_RATE.undefined(everywhere) is not None


def test_the_shift_shows_where_the_edit_leaks() -> None:
    np.testing.assert_allclose(success.attribute_shift(scores()), [4.5 / 4 / 2, 0.0])


def test_collateral_needs_others() -> None:
    lonely = EditScores(BASE[:, :1], BASE[:, :1], EDIT[:, :1], 0, 1, SPREAD[:1])
    assert success.MEAN_COLLATERAL.value(lonely) is None


def test_distances_are_undefined_without_a_scorer() -> None:
    clip = METRICS.create("clip_similarity")
    assert clip.value(scores()) is None
    assert "clip_similarity" in str(clip.undefined(scores()))
    given = scores(clip_similarity=np.array([0.0, 0.5, 1.0, 0.5]))
    assert clip.value(given) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: scores(0),
        lambda: EditScores(BASE, BASE, EDIT, 2, 1, SPREAD),
        lambda: EditScores(BASE, BASE, EDIT, 0, 1, SPREAD * 0),
        lambda: EditScores(BASE, BASE, EDIT[:2], 0, 1, SPREAD),
        lambda: scores(identity=np.ones(3)),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]


def test_the_margin_of_a_shift_is_students() -> None:
    rng = np.random.default_rng(0)
    base, edit, spread = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)), np.array([1.0, 2.0, 4.0])
    change = (edit - base) / spread
    low, high = stats.t.interval(0.95, 5, change.mean(0), stats.sem(change))
    edited = EditScores(base, base, edit, 0, 1, spread)
    shift, margin = success.attribute_shift(edited), success.attribute_shift_margin(edited)
    assert margin is not None
    np.testing.assert_allclose(shift - margin, low)
    np.testing.assert_allclose(shift + margin, high)


def test_one_image_has_no_margin() -> None:
    assert success.attribute_shift_margin(scores().take([0])) is None
