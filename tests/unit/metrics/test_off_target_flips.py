"""Flips of others per flip of the target, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.metrics.bootstrap import evaluate
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.edit_success import OFF_TARGET_FLIPS_PER_FLIP

# Target in column 0. Image 0: flips on, column 1 flips off. Image 1: flips on, nothing else.
# Image 2: had it, loses it (not as asked), columns 1 and 2 flip. Image 3: reaches 0 only.
BASE = np.array([[-1.0, 1.0, 1.0], [-2.0, 1.0, -1.0], [1.0, -1.0, 2.0], [-1.0, 0.0, 1.0]])
EDIT = np.array([[2.0, -1.0, 2.0], [1.0, 2.0, -2.0], [-1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
SCORES = EditScores(BASE, BASE, EDIT, 0, 1, np.ones(3))


def test_hand_worked_example() -> None:
    # Others: 1 on image 0, 2 on image 2, and 0 -> 1 on image 3; the target as asked: 2.
    assert OFF_TARGET_FLIPS_PER_FLIP.value(SCORES) == pytest.approx(4 / 2)
    assert OFF_TARGET_FLIPS_PER_FLIP.value(replace(SCORES, sign=-1)) == pytest.approx(4 / 1)


def test_no_flip_as_asked_is_undefined_with_its_reason() -> None:
    backwards = replace(SCORES.take([2, 3]))
    assert OFF_TARGET_FLIPS_PER_FLIP.value(backwards) is None
    assert "no image's target flipped" in str(
        evaluate(OFF_TARGET_FLIPS_PER_FLIP, backwards, 0).reason
    )
    assert OFF_TARGET_FLIPS_PER_FLIP.value(replace(SCORES, edit=BASE)) is None


def test_a_clean_edit_scores_zero() -> None:
    assert OFF_TARGET_FLIPS_PER_FLIP.value(SCORES.take([1])) == 0


def test_rare_flips_have_no_interval() -> None:
    """One flip among many images: a third of the resamples hold none."""
    rare = SCORES.take([0] + [3] * 9)
    estimate = evaluate(OFF_TARGET_FLIPS_PER_FLIP, rare, 0)
    assert estimate.value == pytest.approx(10) and estimate.low is None
