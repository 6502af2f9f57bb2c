"""What happens to images when a code is changed: cause, isolate, ablate, steer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from casl_bench.metrics.dictionaries import mean_estimate, ratio_estimate
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.metric import Estimate

FLIP_GOAL = 0.9

Flags = NDArray[np.bool_]


def cause(source: Flags, edited: Flags, seed: int) -> Estimate:
    """Share of images [m] whose decision on the target is, after the interchange, the source's.

    Source: RAVEL, Huang et al. 2024, arXiv 2402.17700, section 3.
    """
    return mean_estimate((source == edited).astype(np.float64), seed)


def isolate(base: Flags, edited: Flags, seed: int) -> Estimate:
    """Share of decisions [m, others] on other attributes that stay as the base has them.

    Source: RAVEL, section 3.
    """
    return mean_estimate((base == edited).astype(np.float64).reshape(len(base), -1).mean(1), seed)


@dataclass(frozen=True)
class Edits:
    """Edits of n images at S strengths.

    Attributes:
        target: [S, n] signed change of the target attribute, in reference units.
        others: [S, n] mean absolute change of the other attributes, likewise.
        flipped: [S, n] whether the target's decision is what the edit wants.
    """

    target: Array
    others: Array
    flipped: Flags


Headline = Callable[[Edits, int], Estimate]
"""(edits, seed) -> the editing track's number for them."""


def precision_at_flips(edits: Edits, seed: int, goal: float = FLIP_GOAL) -> Estimate:
    """T / (T + N) where the goal's share of images is flipped; 0 if no strength reaches it.

    T is the mean change of the target, at least 0, N that of the others, both interpolated linearly
    between the two strengths around the goal; at strength 0 nothing is changed or flipped.
    """
    before, nothing = 0.0, np.zeros(edits.target.shape[1])
    lower = nothing, nothing
    for target, others, flipped in zip(edits.target, edits.others, edits.flipped, strict=True):
        share = float(flipped.mean())
        if share >= goal:
            w = (goal - before) / (share - before) if share > before else 1.0
            at = [(1 - w) * a + w * b for a, b in zip(lower, (target, others), strict=True)]
            return target_share(at[0], at[1], seed)
        before, lower = share, (target, others)
    return Estimate(0.0, len(nothing))


def target_share(target: Array, others: Array, seed: int) -> Estimate:
    """T / (T + N) of signed target changes [n] and others' absolute ones [n], in [0, 1]."""
    found = ratio_estimate(target, np.abs(target) + others, seed)
    if found.value is None:
        return Estimate(0.0, len(target))
    low, high = (None if e is None else max(0.0, e) for e in (found.low, found.high))
    return Estimate(max(0.0, found.value), found.n, low, high)


def mahalanobis(rows: Array, mean: Array, covariance: Array, shrinkage: float = 0.05) -> Array:
    """[m] distance of rows [m, C] from a mean, the covariance shrunk towards its mean variance.

    Source: Mahalanobis 1936; shrinkage as in Ledoit & Wolf 2004 with a fixed weight.
    """
    channels = len(mean)
    shrunk = (1 - shrinkage) * covariance
    shrunk = shrunk + shrinkage * np.trace(covariance) / channels * np.eye(channels)
    centred = rows - mean
    squared = (centred * np.linalg.solve(shrunk, centred.T).T).sum(1)
    distance: Array = np.sqrt(np.maximum(squared, 0) / channels)
    return distance


def off_manifold(edited: Array, real: Array, seed: int) -> Estimate:
    """Mean distance of edited activations over that of real ones, [n] each; 1 is no cost."""
    return ratio_estimate(edited, real, seed)
