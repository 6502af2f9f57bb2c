"""What a code keeps of activations, and how sparse it is."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from casl_bench.metrics.dictionaries import ratio_estimate
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.metric import Estimate

DENSE = 0.1
"""A latent that is active on more than this share of vectors is dense."""


def explained_variance(h: Array, h_hat: Array, seed: int) -> Estimate:
    """1 - sum ||h - h_hat||² / sum ||h - mean||², over vectors [n, m, C] of n images.

    Source: Gao et al. 2024; the interval resamples images.
    """
    error = ((h - h_hat) ** 2).sum((1, 2))
    spread = ((h - h.mean((0, 1))) ** 2).sum((1, 2))
    return ratio_estimate(error, spread, seed, one_minus=True)


def eps_error(eps: Array, eps_hat: Array, seed: int) -> Estimate:
    """Sum ||eps_hat - eps||² / sum ||eps||² over images [n, ...]; 0 where nothing is lost."""
    n = len(eps)
    error = ((eps_hat - eps) ** 2).reshape(n, -1).sum(1)
    return ratio_estimate(error, (eps**2).reshape(n, -1).sum(1), seed)


def l0(active: Array, seed: int) -> Estimate:
    """Active latents per vector, from their mean count in each image [n]."""
    return ratio_estimate(active, np.ones(len(active)), seed)


def dead_share(frequency: Array) -> float:
    """Share of latents that are active on no vector, from their frequencies [d_sae] in [0, 1]."""
    return float((frequency == 0).mean())


def dense_share(frequency: Array) -> float:
    """Share of latents that are active on more than a tenth of vectors, of those not dead."""
    alive = frequency[frequency > 0]
    return float((alive > DENSE).mean()) if len(alive) else 0.0


def matched_cosine(a: Array, b: Array, signed: bool = False) -> float:
    """Mean cosine of directions [m, C] and [n, C], matched one to one so that it is largest.

    Of m and n the fewer are matched. With `signed` codes a direction is worth its negative.

    Source: Paulo & Belrose 2025, arXiv 2501.16615, section 3 (Hungarian matching).
    """
    if not len(a) or not len(b):
        return 0.0
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b)]
    cosine = unit[0] @ unit[1].T
    if signed:
        cosine = np.abs(cosine)
    rows, columns = linear_sum_assignment(-cosine)
    return float(np.clip(cosine[rows, columns].mean(), 0, 1))
