"""One resample of the images weighs every method and concept; data sets apart."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.analysis.uncertainty import Design, resample_scores
from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array

DESIGN = Design(("b", "a", "a", "b", "a", "b"), ("a", "b", "b"))


def weights_of(design: Design, seed: int, resamples: int = 50) -> Array:
    seen = []

    def score(weights: Array) -> Array:
        seen.append(weights)
        return np.zeros((len(weights), 1, len(design.concepts)))

    resample_scores(score, ["x"], design, seed, resamples=resamples)
    uniform, drawn = seen
    assert uniform.shape == (1, len(design.images))
    return drawn


def test_images_are_drawn_within_their_data_set() -> None:
    drawn = weights_of(DESIGN, 0)
    a, b = [1, 2, 4], [0, 3, 5]
    for own in (a, b):
        np.testing.assert_allclose(drawn[:, own].sum(1), 1)
        counts = drawn[:, own] * 3
        np.testing.assert_allclose(counts, np.rint(counts))
    assert not np.array_equal(drawn[:, a], drawn[:, b])  # as many images, other draws


def test_the_same_seed_draws_alike_and_another_one_does_not() -> None:
    assert np.array_equal(weights_of(DESIGN, 3), weights_of(DESIGN, 3))
    assert not np.array_equal(weights_of(DESIGN, 3), weights_of(DESIGN, 4))


def test_uniform_weights_give_the_scores_as_measured() -> None:
    values = np.array([3.0, 1.0, 2.0, 5.0, 6.0, 4.0])  # a: 3, b: 4

    def score(weights: Array) -> Array:
        a, b = ((weights * values)[:, own].sum(1) for own in ([1, 2, 4], [0, 3, 5]))
        return np.stack([a, b, b], axis=-1)[:, None]

    draws = resample_scores(score, ["x"], DESIGN, 0, resamples=20)
    np.testing.assert_allclose(draws.measured, [[3, 4, 4]])
    assert draws.resampled.shape == (20, 1, 3)
    assert np.array_equal(draws.resampled[..., 1], draws.resampled[..., 2])


def test_weights_of_the_mean() -> None:
    np.testing.assert_allclose(DESIGN.weights, [1 / 3] * 3)


def test_scores_that_are_not_finite_as_measured_are_refused() -> None:
    def score(weights: Array) -> Array:
        scores = np.zeros((len(weights), 2, 3))
        scores[:, 1, 2] = np.nan
        return scores

    with pytest.raises(InputError, match="'y' has no finite score on concept 2"):
        resample_scores(score, ["x", "y"], DESIGN, 0)
