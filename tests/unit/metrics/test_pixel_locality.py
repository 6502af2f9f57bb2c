"""Where the changed pixels lie, counted by hand and by plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.image_similarity import PIXEL_LOCALITY, pixel_locality


def picture(*dots: tuple[int, int, float], size: int = 8) -> np.ndarray:
    """[1, 3, size, size] of 0, with values at (row, column) of the second channel."""
    image = np.zeros((1, 3, size, size))
    for row, column, value in dots:
        image[0, 1, row, column] = value
    return image


ORACLE = picture((3, 3, -0.5), (0, 7, 0.09))  # the second lies under the threshold


def test_hand_worked_example() -> None:
    base = picture()
    edit = picture((3, 3, 0.4), (5, 5, 0.2), (6, 3, 0.3), (0, 7, 0.1))
    # Squares: 0.16 and 0.04 within two pixels, 0.09 and 0.01 outside.
    share = pixel_locality(edit, base, ORACLE)
    np.testing.assert_allclose(share, [0.2 / 0.3])


def test_the_perfect_edit_scores_one_and_its_complement_zero() -> None:
    rng = np.random.default_rng(0)
    change = np.zeros((5, 3, 16, 16))
    change[:, :, 4:9, 4:9] = rng.choice([-1, 1], (5, 3, 5, 5)) * rng.uniform(0.2, 1, (5, 3, 5, 5))
    base = rng.uniform(-1, 1, change.shape)
    np.testing.assert_allclose(pixel_locality(base + change, base, change), 1)
    away = np.roll(change, 8, axis=(2, 3))
    np.testing.assert_allclose(pixel_locality(base + away, base, change), 0, atol=1e-12)


def test_nothing_is_gained_by_doing_nothing() -> None:
    base, region = picture(), 25 / 64
    even = np.full_like(base, 0.3)
    np.testing.assert_allclose(pixel_locality(base, base, ORACLE), region)
    np.testing.assert_allclose(pixel_locality(base + even, base, ORACLE), region)
    np.testing.assert_allclose(pixel_locality(base, base, base), 0)  # an empty region


def test_it_is_the_plain_computation() -> None:
    rng = np.random.default_rng(1)
    edit, base, known = (rng.uniform(-1, 1, (3, 3, 9, 7)) for _ in range(3))
    known *= rng.random((3, 1, 9, 7)) < 0.08
    expected = []
    for i in range(3):
        inside = total = 0.0
        for r in range(9):
            for c in range(7):
                near = any(
                    abs(known[i, ch, a, b]) > 0.1
                    for ch in range(3)
                    for a in range(max(0, r - 2), min(9, r + 3))
                    for b in range(max(0, c - 2), min(7, c + 3))
                )
                energy = sum((edit[i, ch, r, c] - base[i, ch, r, c]) ** 2 for ch in range(3))
                total += energy
                inside += energy * near
        expected.append(inside / total)
    found = pixel_locality(edit, base, known)
    np.testing.assert_allclose(found, expected)
    assert found.min() > 0 and found.max() < 1
    order = [2, 0, 1]
    np.testing.assert_array_equal(
        pixel_locality(edit[order], base[order], known[order]), found[order]
    )


def test_a_region_at_the_edge_does_not_wrap_round() -> None:
    still, oracle = np.zeros((1, 3, 6, 6)), np.zeros((1, 3, 6, 6))
    oracle[0, 0, 0, 5] = 1
    # What changes nothing scores the region's share of the image.
    assert pixel_locality(still, still, oracle) == pytest.approx([9 / 36])


@pytest.mark.parametrize(
    "change",
    [
        {"edit": picture(size=9)},
        {"base": picture()[0]},
        {"oracle_change": picture((0, 0, np.nan))},
        {"edit": picture((0, 0, np.inf))},
    ],
)
def test_bad_input_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        pixel_locality(**{"edit": picture(), "base": picture(), "oracle_change": ORACLE, **change})


def test_the_metric_reads_the_column() -> None:
    logits = np.zeros((2, 2))
    scores = EditScores(logits, logits, logits, 0, 1, np.ones(2), locality=np.array([0.5, 1.0]))
    assert PIXEL_LOCALITY.value(scores) == pytest.approx(0.75)
    without = EditScores(logits, logits, logits, 0, 1, np.ones(2))
    assert "locality" in str(PIXEL_LOCALITY.undefined(without))
