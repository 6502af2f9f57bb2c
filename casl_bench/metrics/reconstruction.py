"""How well inversion and generation give the image back, and whether the noise is noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, check_array
from casl_bench.metrics.metric import MetricInfo

PSNR_CEILING = 100.0

PSNR_INFO = MetricInfo("psnr", 1, True, "dB", (None, PSNR_CEILING), "PSNR")
AGREEMENT_INFO = MetricInfo("attribute_agreement", 1, True, "share", (0, 1), "agreement")
X_T_MEAN_INFO = MetricInfo("x_T_mean", 1, None, "", (None, None), "mean of x_T")
X_T_STD_INFO = MetricInfo("x_T_std", 1, None, "", (0, None), "std of x_T")


def psnr(images: ArrayLike, reference: ArrayLike) -> Array:
    """10 log10(4 / mean squared error), for each image; both are clamped to [-1, 1] first.

    Args:
        images: [n, 3, H, W].
        reference: same shape.

    Returns:
        [n] in dB (data range 2), at most `PSNR_CEILING`, which equal images get.

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
    """Share of images on which a classifier decides alike (logit > 0), for each attribute.

    Args:
        source_logits: [n, A], n >= 1.
        reconstruction_logits: [n, A].

    Returns:
        [A] in [0, 1]; its mean is the overall agreement.

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
    """Whether inverted noise looks like noise: about mean 0 and standard deviation 1.

    A good PSNR does not show this, and where it fails directions in h-space do not steer.

    Args:
        x_T: [n, 3, H, W], n >= 1.

    Raises:
        InputError: on another number of axes, no image, NaN or infinity.
    """
    noise = check_array("x_T", x_T, 4)
    if len(noise) == 0:
        raise InputError("at least one image is needed")
    axes = (1, 2, 3)
    return NoiseStatistics(float(noise.mean(axes).mean()), float(noise.std(axes).mean()))
