"""Spearman's rank correlation, and its mean over concepts with an interval over concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array, check_array
from casl_bench.metrics.intervals import (
    RESAMPLES,
    Interval,
    percentile_interval,
    resampling_weights,
)


def ranks(values: ArrayLike) -> Array:
    """Places from 1 on; equal values share the mean of their places.

    Args:
        values: [n], finite.

    Raises:
        InputError: on another shape, NaN or infinity.
    """
    array = check_array("values", values, 1)
    _, place, count = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_place: Array = (last - (count - 1) / 2)[place]
    return mean_place


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation of the ranks, in [-1, 1].

    Args:
        a: [n], finite.
        b: [n], finite.

    Returns:
        None where either does not vary, or n < 2.

    Raises:
        InputError: on other shapes, NaN or infinity.
    Source: Spearman 1904, with mean ranks for ties.
    """
    x, y = ranks(a), ranks(b)
    if len(x) != len(y):
        raise InputError(f"a correlation needs pairs, got {len(x)} and {len(y)} values")
    if len(x) < 2:
        return None
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else None


@dataclass(frozen=True)
class MeanCorrelation:
    """A mean over concepts.

    Attributes:
        value: None where no concept has a correlation.
        interval: over concepts; None with fewer than two, or where all agree.
        concepts: how many have one.
    """

    value: float | None
    interval: Interval | None
    concepts: int


def mean_over_concepts(correlations: Sequence[float | None], seed: int) -> MeanCorrelation:
    """The mean of those that are defined, with a bootstrap interval over concepts.

    Args:
        correlations: one a concept, None where a concept has none.
        seed: of the resamples.
    """
    known = np.array([c for c in correlations if c is not None], dtype=np.float64)
    if len(known) == 0:
        return MeanCorrelation(None, None, 0)
    interval = None
    if len(known) > 1:
        interval = percentile_interval(resampling_weights(len(known), RESAMPLES, seed) @ known)
    return MeanCorrelation(float(known.mean()), interval, len(known))
