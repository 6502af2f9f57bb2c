"""Means of what other scorers measured on each image: CLIP direction, perceptual, identity."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, EditScores, check_array, check_unrelated
from casl_bench.metrics.metric import (
    BASELINE,
    UNRELATED,
    EditMetric,
    MetricInfo,
    first_column,
    register_metric,
)


def mean_of_column(field: str, info: MetricInfo) -> EditMetric:
    """Register the plain mean of one of `PER_IMAGE`, undefined where nobody measured it."""

    def per_image(scores: EditScores) -> Array:
        return np.asarray(getattr(scores, field), dtype=np.float64)[:, None]

    def undefined(scores: EditScores) -> str | None:
        return None if getattr(scores, field) is not None else f"no scorer gave '{field}'"

    return register_metric(EditMetric(info, per_image, first_column, undefined))


CLIP_SIMILARITY = mean_of_column(
    "clip_similarity",
    MetricInfo(
        name="clip_similarity",
        version=1,
        higher_is_better=True,
        unit="cosine",
        bounds=(-1, 1),
        title="CLIP",
        source="directional similarity, StyleGAN-NADA (Gal et al. 2022), eq. 3",
        scale_free=True,
        depends_on=(BASELINE,),
    ),
)
PERCEPTUAL = mean_of_column(
    "perceptual",
    MetricInfo(
        name="perceptual",
        version=1,
        higher_is_better=False,
        unit="distance",
        bounds=(0, None),
        title="perceptual",
        scale_free=True,
        depends_on=(BASELINE,),
    ),
)
IDENTITY = mean_of_column(
    "identity",
    MetricInfo(
        name="identity",
        version=1,
        higher_is_better=True,
        unit="cosine",
        bounds=(-1, 1),
        title="identity",
        scale_free=True,
        depends_on=(BASELINE,),
    ),
)


# How far an edit went towards being another image: precision is not to be bought that way.


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


# Whether an edit changes the pixels that the perfect edit changes. Drawn images only.


THRESHOLD = 0.1
"""A pixel belongs to the region where any of its channels changes by more: 13 of 255 levels."""

MARGIN = 2
"""Pixels by which the region is widened on every side: an edit need not hit the very edge."""


def pixel_locality(
    edit: ArrayLike,
    base: ArrayLike,
    oracle_change: ArrayLike,
    threshold: float = THRESHOLD,
    margin: int = MARGIN,
) -> Array:
    """sum_{p in R_i} |edit_ip - base_ip|^2 / sum_p |edit_ip - base_ip|^2 for each image i.

    |.|^2 sums over the channels of pixel p. R_i = the pixels where the perfect edit changes any
    channel by more than the threshold, dilated by a square of 2 * margin + 1 pixels.

    An edit that changes nothing scores as one that changes every pixel alike: the region's share of
    the image. So nothing is gained by doing nothing. Where the perfect edit changes the whole image
    every edit scores 1, and the number says nothing.

    Args:
        edit: [n, 3, H, W] edited images, in [-1, 1].
        base: same shape, their reconstructions.
        oracle_change: same shape, the perfect edit minus what it was made from.
        threshold: >= 0, in the unit of the pixels.
        margin: >= 0.

    Returns:
        [n] in [0, 1], never NaN.

    Raises:
        InputError: on other shapes, NaN or infinity, a negative threshold or margin.
    Source: ours; after the edited and unedited regions of PIE-Bench.
    """
    before = check_array("base images", base, 4)
    change = (check_array("edited images", edit, 4, before.shape) - before) ** 2
    known = check_array("oracle's change", oracle_change, 4, before.shape)
    if not (threshold >= 0 and np.isfinite(threshold)) or margin < 0:
        raise InputError(f"threshold {threshold} and margin {margin} must not be negative")
    region = dilate(np.abs(known).max(1) > threshold, margin)
    energy = change.sum(1)
    total = energy.sum((1, 2))
    inside = np.where(region, energy, 0.0).sum((1, 2))
    share: Array = np.divide(inside, total, out=region.mean((1, 2)), where=total > 0)
    return np.minimum(share, 1.0)  # the two sums round apart


def dilate(region: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """[n, H, W]: every pixel within `margin` columns and rows of the region; the edges stay."""
    for axis in (1, 2):
        widths = [(margin, margin) if a == axis else (0, 0) for a in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(region, widths), 2 * margin + 1, axis=axis
        )
        region = np.any(windows, axis=-1)
    return region


PIXEL_LOCALITY = mean_of_column(
    "locality",
    MetricInfo(
        name="pixel_locality",
        version=1,
        higher_is_better=True,
        unit="fraction",
        bounds=(0, 1),
        title="change in the right place",
        scale_free=True,
        depends_on=(
            BASELINE,
            f"region: the oracle's change over {THRESHOLD}, widened by {MARGIN} pixels",
        ),
    ),
)
