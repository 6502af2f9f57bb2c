"""How far an edit went towards being another image: precision is not to be bought that way.

0 is the reconstruction itself, 1 as far as images that have nothing to do with each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array, check_array
from casl_bench.metrics.edit_scores import EditScores, check_unrelated
from casl_bench.metrics.metric import (
    BASELINE,
    UNRELATED,
    EditMetric,
    MetricInfo,
    first_column,
    register_metric,
)

GUARD_THRESHOLD = 0.5
"""A guard fires above it: on average an edit went more than half the way to another image."""


def perceptual_guard(perceptual: ArrayLike, unrelated: float) -> float:
    """mean_i perceptual_i / mean perceptual distance of pairs of unrelated test images.

    Args:
        perceptual: [n] distances of edits from their reconstructions, n >= 1.
        unrelated: > 0, the mean over pairs.

    Returns:
        0 for an unchanged image, about 1 for another one; it may exceed 1.

    Raises:
        InputError: on another shape, no image, NaN or infinity, or a reference that is not > 0.
    Source: ours.
    """
    check_unrelated(unrelated, None)
    return float(_perceptual_share(_check(perceptual), unrelated).mean())


def identity_guard(identity: ArrayLike, unrelated: float) -> float:
    """mean_i (1 - identity_i) / (1 - mean identity of pairs of unrelated test images).

    Args:
        identity: [n] similarities of edits with their reconstructions, n >= 1; one that rounding
            put above 1 counts as 1.
        unrelated: in [-1, 1), the mean over pairs.

    Returns:
        0 for the same identity, about 1 for another one; it may exceed 1.

    Raises:
        InputError: on another shape, no image, NaN or infinity, or a reference out of its range.
    Source: ours.
    """
    check_unrelated(None, unrelated)
    return float(_identity_share(_check(identity), unrelated).mean())


def guard_fires(value: float) -> bool:
    """Whether a guard's value lies above `GUARD_THRESHOLD`.

    Raises:
        InputError: on NaN or infinity.
    """
    if not np.isfinite(value):
        raise InputError(f"a guard's value must be finite, got {value}")
    return value > GUARD_THRESHOLD


def _check(values: ArrayLike) -> Array:
    array = check_array("scores of the edits", values, 1)
    if len(array) == 0:
        raise InputError("at least one image is needed")
    return array


def _perceptual_share(perceptual: Array, unrelated: float) -> Array:
    return perceptual / unrelated


def _identity_share(identity: Array, unrelated: float) -> Array:
    return np.maximum(1 - identity, 0) / (1 - unrelated)


def _perceptual_column(scores: EditScores) -> Array:
    assert scores.perceptual is not None and scores.unrelated_perceptual is not None
    return _perceptual_share(scores.perceptual, scores.unrelated_perceptual)[:, None]


def _identity_column(scores: EditScores) -> Array:
    assert scores.identity is not None and scores.unrelated_identity is not None
    return _identity_share(scores.identity, scores.unrelated_identity)[:, None]


def _no_perceptual(scores: EditScores) -> str | None:
    return _absent(scores, "perceptual", "unrelated_perceptual")


def _no_identity(scores: EditScores) -> str | None:
    return _absent(scores, "identity", "unrelated_identity")


def _absent(scores: EditScores, *fields: str) -> str | None:
    absent = next((f for f in fields if getattr(scores, f) is None), None)
    return None if absent is None else f"no scorer gave '{absent}'"


PERCEPTUAL_GUARD = register_metric(
    EditMetric(
        MetricInfo(
            name="perceptual_guard",
            version=1,
            higher_is_better=False,
            unit="ratio",
            bounds=(0, None),
            title="on the way to another picture",
            scale_free=True,
            depends_on=(BASELINE, UNRELATED),
        ),
        _perceptual_column,
        first_column,
        _no_perceptual,
    )
)
IDENTITY_GUARD = register_metric(
    EditMetric(
        MetricInfo(
            name="identity_guard",
            version=1,
            higher_is_better=False,
            unit="ratio",
            bounds=(0, None),
            title="on the way to another identity",
            scale_free=True,
            depends_on=(BASELINE, UNRELATED),
        ),
        _identity_column,
        first_column,
        _no_identity,
    )
)
