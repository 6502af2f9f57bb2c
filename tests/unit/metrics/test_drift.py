"""Drift: 0 for the image itself, 1 for another image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.image_similarity import IDENTITY_DRIFT, PERCEPTUAL_DRIFT

LOGITS = np.zeros((2, 2))
SCORES = EditScores(
    LOGITS, LOGITS, LOGITS, 0, 1, np.ones(2),
    perceptual=np.array([0.1, 0.3]), identity=np.array([0.9, 0.5]),
    unrelated_perceptual=0.8, unrelated_identity=0.2,
)  # fmt: skip


def drifts(perceptual: float, identity: float) -> tuple[float | None, float | None]:
    scores = replace(SCORES, perceptual=np.full(2, perceptual), identity=np.full(2, identity))
    return PERCEPTUAL_DRIFT.value(scores), IDENTITY_DRIFT.value(scores)


def test_hand_worked_example() -> None:
    assert PERCEPTUAL_DRIFT.value(SCORES) == pytest.approx(0.25)
    assert IDENTITY_DRIFT.value(SCORES) == pytest.approx(0.375)


def test_the_image_itself_is_zero_another_image_is_one() -> None:
    assert drifts(0.0, 1.0) == (0, 0)
    assert drifts(0.8, 0.2) == (1, 1)
    assert drifts(0.0, 1 + 1e-7) == (0, 0)  # a cosine rounded up
    assert (drifts(0.0, -1.0)[1] or 0) > 1


@pytest.mark.parametrize("name", ["perceptual", "identity"])
def test_without_the_score_or_its_reference_a_drift_is_undefined(name: str) -> None:
    metric = {"perceptual": PERCEPTUAL_DRIFT, "identity": IDENTITY_DRIFT}[name]
    for field in (name, f"unrelated_{name}"):
        without = replace(SCORES, **{field: None})
        assert metric.value(without) is None
        assert f"'{field}'" in str(metric.undefined(without))


@pytest.mark.parametrize(
    "call",
    [
        lambda: drifts(float("nan"), 0.5),
        lambda: drifts(0.5, float("inf")),
        lambda: replace(SCORES, unrelated_perceptual=0.0),
        lambda: replace(SCORES, unrelated_perceptual=-1.0),
        lambda: replace(SCORES, unrelated_perceptual=float("inf")),
        lambda: replace(SCORES, unrelated_identity=1.0),
        lambda: replace(SCORES, unrelated_identity=float("nan")),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
