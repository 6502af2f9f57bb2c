"""How alike images are: reconstructions and their sources, edits and their reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, EditScores, check_array
from casl_bench.metrics.metric import (
    BASELINE,
    UNRELATED,
    EditMetric,
    MetricInfo,
    first_column,
    register_metric,
)

# How well inversion and generation give the image back, and whether the noise is noise.

PSNR_CEILING = 100.0


def psnr(images: ArrayLike, reference: ArrayLike) -> Array:
    """[n] 10 log10(4 / mean squared error) of images [n, 3, H, W], clamped to [-1, 1] first.

    In dB (data range 2), at most `PSNR_CEILING`, which equal images get.

    Raises:
        InputError: on other shapes, NaN or infinity.
    """
    a = np.clip(check_array("images", images, 4), -1, 1)
    b = np.clip(check_array("reference", reference, 4, a.shape), -1, 1)
    mse = ((a - b) ** 2).mean((1, 2, 3))
    floor = 4 / 10 ** (PSNR_CEILING / 10)
    decibels: Array = 10 * np.log10(4 / np.maximum(mse, floor))
    return decibels


def attribute_agreement(source_logits: ArrayLike, reconstruction_logits: ArrayLike) -> Array:
    """[A] share of n >= 1 images on which a classifier decides alike (logit > 0); logits [n, A].

    Raises:
        InputError: on other shapes, no image, NaN or infinity.
    """
    source = check_array("source logits", source_logits, 2)
    reconstruction = check_array("reconstruction logits", reconstruction_logits, 2, source.shape)
    if len(source) == 0:
        raise InputError("at least one image is needed")
    agreement: Array = ((source > 0) == (reconstruction > 0)).mean(0)
    return agreement


@dataclass(frozen=True)
class NoiseStatistics:
    """Mean and standard deviation of x_T within each image, averaged over images."""

    mean: float
    std: float


def noise_statistics(x_T: ArrayLike) -> NoiseStatistics:
    """Whether inverted noise [n, 3, H, W] is like noise: about mean 0 and standard deviation 1.

    A good PSNR does not show this, and where it fails directions in h-space do not steer.

    Raises:
        InputError: on another number of axes, no image, NaN or infinity.
    """
    noise = check_array("x_T", x_T, 4)
    if len(noise) == 0:
        raise InputError("at least one image is needed")
    axes = (1, 2, 3)
    return NoiseStatistics(float(noise.mean(axes).mean()), float(noise.std(axes).mean()))


# Means of what other scorers measured on each image, one of the columns of `PER_IMAGE`.


def _mean_of_column(field: str, info: MetricInfo) -> EditMetric:
    def per_image(scores: EditScores) -> Array:
        return np.asarray(getattr(scores, field), dtype=np.float64)[:, None]

    undefined = partial(_absent, fields=(field,))
    return register_metric(EditMetric(info, per_image, first_column, undefined))


def _absent(scores: EditScores, fields: Sequence[str]) -> str | None:
    absent = next((f for f in fields if getattr(scores, f) is None), None)
    return None if absent is None else f"no scorer gave '{absent}'"


_GAL = "directional similarity, StyleGAN-NADA (Gal et al. 2022), eq. 3"
for _name, _version, _better, _unit, _bounds, _title, _source in (
    ("clip_similarity", 1, True, "cosine", (-1, 1), "CLIP", _GAL),
    ("perceptual", 1, False, "distance", (0, None), "perceptual", "ours"),
    ("identity", 1, True, "cosine", (-1, 1), "identity", "ours"),
):
    _mean_of_column(
        _name,
        MetricInfo(_name, _version, _better, _unit, _bounds, _title, _source, True, (BASELINE,)),
    )


# Image-quality check: how far an edit moved towards an unrelated image (0 = reconstruction,
# 1 = unrelated).

DRIFT_THRESHOLD = 0.5
"""Above it a drift is flagged: on average an edit went more than half the way to another image."""


def _drift(scorer: str, title: str, share: Callable[[Array, float], Array]) -> EditMetric:
    fields = (scorer, f"unrelated_{scorer}")

    def per_image(scores: EditScores) -> Array:
        own, unrelated = (getattr(scores, field) for field in fields)
        return share(own, unrelated)[:, None]

    info = MetricInfo(
        name=f"{scorer}_drift",
        formerly=f"{scorer}_guard",
        version=1,
        higher_is_better=False,
        unit="ratio",
        bounds=(0, None),
        title=title,
        scale_free=True,
        depends_on=(BASELINE, UNRELATED),
    )
    undefined = partial(_absent, fields=fields)
    return register_metric(EditMetric(info, per_image, first_column, undefined))


PERCEPTUAL_DRIFT = _drift(
    "perceptual",
    "on the way to another picture",
    lambda distance, unrelated: distance / unrelated,
)
"""mean_i perceptual_i / mean perceptual distance of pairs of unrelated test images.

0 for an unchanged image, about 1 for another one; it may exceed 1.
"""
IDENTITY_DRIFT = _drift(
    "identity",
    "on the way to another identity",
    lambda identity, unrelated: np.maximum(1 - identity, 0) / (1 - unrelated),
)
"""mean_i (1 - identity_i) / (1 - mean identity of pairs of unrelated test images).

0 for the same identity, about 1 for another one; it may exceed 1. A similarity that rounding put
above 1 counts as 1.
"""


# Whether an edit changes the pixels that the perfect edit changes. Rendered images only.

THRESHOLD = 0.1
"""A pixel belongs to the region where any of its channels changes by more: 13 of 255 levels."""

MARGIN = 2
"""Pixels by which the region is widened on every side: an edit need not hit the very edge."""


def pixel_locality(edit: ArrayLike, base: ArrayLike, oracle_change: ArrayLike) -> Array:
    """[n] sum_{p in R_i} |edit_ip - base_ip|^2 / sum_p |edit_ip - base_ip|^2 for each image i.

    |.|^2 sums over the channels of pixel p. R_i = the pixels where the perfect edit changes any
    channel by more than `THRESHOLD`, dilated by a square of 2 * `MARGIN` + 1 pixels.

    An edit that changes nothing scores as one that changes every pixel alike, the region's share of
    the image, so doing nothing gains nothing. Where the perfect edit changes the whole image every
    edit scores 1, and the number means nothing.

    Args:
        edit: [n, 3, H, W] edited images, in [-1, 1].
        base: same shape, their reconstructions.
        oracle_change: same shape, the perfect edit minus what it was made from.

    Raises:
        InputError: on other shapes, NaN or infinity.
    Source: ours; after the edited and unedited regions of PIE-Bench.
    """
    energy, region = _energy_and_region(edit, base, oracle_change)
    total = energy.sum((1, 2))
    inside = np.where(region, energy, 0.0).sum((1, 2))
    share: Array = np.divide(inside, total, out=region.mean((1, 2)), where=total > 0)
    return np.minimum(share, 1.0)  # the two sums round apart


def _energy_and_region(
    edit: ArrayLike, base: ArrayLike, oracle_change: ArrayLike
) -> tuple[Array, NDArray[np.bool_]]:
    """[n, H, W] squared change of each pixel, and whether it is in the perfect edit's region."""
    from scipy.ndimage import binary_dilation  # not needed to read metrics' names

    before = check_array("base images", base, 4)
    change = (check_array("edited images", edit, 4, before.shape) - before) ** 2
    known = check_array("oracle's change", oracle_change, 4, before.shape)
    square = np.ones((1, 2 * MARGIN + 1, 2 * MARGIN + 1))
    region = binary_dilation(np.abs(known).max(1) > THRESHOLD, square)
    return change.sum(1), region


def background_change(edit: ArrayLike, base: ArrayLike, oracle_change: ArrayLike) -> Array:
    """[n] sqrt(mean_{p not in R_i} |edit_ip - base_ip|^2 / (2 var_i)) for each image i.

    R_i as in `pixel_locality`, var_i the mean over all pixels of |base_ip - mean_p base_ip|^2. Two
    unrelated images of equal contrast differ by 2 var_i, so 0 is an untouched background and about
    1 another image's. 0 where the perfect edit changes the whole image: there is no background.
    An image without any contrast counts as changed, 1, where its background changed at all.

    Args:
        edit: [n, 3, H, W] edited images, in [-1, 1].
        base: same shape, their reconstructions.
        oracle_change: same shape, the perfect edit minus what it was made from.

    Raises:
        InputError: on other shapes, NaN or infinity.
    Source: ours.
    """
    energy, region = _energy_and_region(edit, base, oracle_change)
    before = np.asarray(base, dtype=np.float64)
    contrast = ((before - before.mean((2, 3), keepdims=True)) ** 2).sum(1).mean((1, 2))
    pixels = (~region).sum((1, 2))
    moved = np.where(region, 0.0, energy).sum((1, 2)) / np.maximum(pixels, 1)
    share = np.divide(moved, 2 * contrast, out=(moved > 0).astype(np.float64), where=contrast > 0)
    root: Array = np.sqrt(share)
    return root


PIXEL_LOCALITY = _mean_of_column(
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
