"""Whether an edit changes the pixels that the perfect edit changes. Drawn images only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array, check_array
from casl_bench.metrics.metric import BASELINE, MetricInfo
from casl_bench.metrics.similarity import mean_of_column

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
