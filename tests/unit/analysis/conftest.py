"""Scores that are means of numbers of images, so that every figure can be had by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from casl_bench.analysis.uncertainty import Design, ResampledScores, resample_scores
from casl_bench.metrics.edit_scores import Array


@pytest.fixture
def draw() -> Callable[..., ResampledScores]:
    """[M, C, I] numbers → resampled means over the images of a concept's data set."""

    def make(
        values: ArrayLike,
        images: Sequence[str] | None = None,
        concepts: Sequence[str] | None = None,
        *,
        methods: Sequence[str] | None = None,
        seed: int = 0,
        resamples: int = 500,
    ) -> ResampledScores:
        array = np.asarray(values, dtype=np.float64)
        m, c, i = array.shape
        design = Design(tuple(images or ["d"] * i), tuple(concepts or ["d"] * c))
        mine = np.array([[x == y for x in design.images] for y in design.concepts])

        def score(weights: Array) -> Array:
            return np.einsum("ri,mci->rmc", weights, array * mine)

        return resample_scores(
            score, methods or [f"m{k}" for k in range(m)], design, seed, resamples=resamples
        )

    return make
