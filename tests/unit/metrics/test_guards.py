"""Guards: 0 for the image itself, 1 for another image, firing in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.image_similarity import (
    GUARD_THRESHOLD,
    IDENTITY_GUARD,
    PERCEPTUAL_GUARD,
    guard_fires,
    identity_guard,
    perceptual_guard,
)

LOGITS = np.zeros((2, 2))
SCORES = EditScores(
    LOGITS, LOGITS, LOGITS, 0, 1, np.ones(2),
    perceptual=np.array([0.1, 0.3]), identity=np.array([0.9, 0.5]),
    unrelated_perceptual=0.8, unrelated_identity=0.2,
)  # fmt: skip


def test_hand_worked_example() -> None:
    assert perceptual_guard([0.1, 0.3], 0.8) == pytest.approx(0.25)
    assert identity_guard([0.9, 0.5], 0.2) == pytest.approx(0.3 / 0.8)
    assert PERCEPTUAL_GUARD.value(SCORES) == pytest.approx(0.25)
    assert IDENTITY_GUARD.value(SCORES) == pytest.approx(0.375)


def test_the_image_itself_is_zero_another_image_is_one() -> None:
    assert perceptual_guard([0.0], 0.8) == 0 and identity_guard([1.0], 0.2) == 0
    assert perceptual_guard([0.8], 0.8) == 1 and identity_guard([0.2], 0.2) == 1
    assert identity_guard([1 + 1e-7], 0.2) == 0  # a cosine rounded up
    assert identity_guard([-1.0], 0.2) > 1


def test_guards_fire_above_half_the_way() -> None:
    assert not guard_fires(GUARD_THRESHOLD)
    assert guard_fires(np.nextafter(GUARD_THRESHOLD, 1))
    assert guard_fires(perceptual_guard([0.7, 0.5], 0.8))
    assert not guard_fires(perceptual_guard([0.1, 0.3], 0.8))


@pytest.mark.parametrize("name", ["perceptual", "identity"])
def test_without_the_score_or_its_reference_a_guard_is_undefined(name: str) -> None:
    metric = {"perceptual": PERCEPTUAL_GUARD, "identity": IDENTITY_GUARD}[name]
    for field in (name, f"unrelated_{name}"):
        without = replace(SCORES, **{field: None})
        assert metric.value(without) is None
        assert f"'{field}'" in str(metric.undefined(without))


@pytest.mark.parametrize(
    "call",
    [
        lambda: perceptual_guard([0.1], 0.0),
        lambda: perceptual_guard([0.1], float("inf")),
        lambda: perceptual_guard([], 0.5),
        lambda: perceptual_guard([float("nan")], 0.5),
        lambda: identity_guard([0.1], 1.0),
        lambda: identity_guard([0.1], float("nan")),
        lambda: identity_guard([[0.1]], 0.5),
        lambda: guard_fires(float("nan")),
        lambda: replace(SCORES, unrelated_perceptual=-1.0),
        lambda: replace(SCORES, unrelated_identity=1.0),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
