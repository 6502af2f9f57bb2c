"""Pixels moved a little so that one classifier sees the edit, and nobody else does."""

from __future__ import annotations

import torch
from torch import Tensor

from casl_bench.metrics.arrays import Array
from casl_bench.scorers.attribute_scorer import Differentiable

RADIUS = 8 / 127.5
"""Largest change of a value, pixels in [-1, 1]: 8 grey levels of 255."""
STEPS = 20
OTHERS_WEIGHT = 4.0
"""What a change of the others costs, against what the same change of the target brings."""


def attacked(scorer: Differentiable, pixels: Tensor, target: int, spread: Array) -> Tensor:
    """Pictures within `RADIUS` of the given ones whose target logit is up and whose others stay.

    Args:
        scorer: the classifier that is deceived.
        pixels: [n, 3, H, W] in [-1, 1].
        target: column to be turned on.
        spread: [A] standard deviation of each logit over real images, > 0.

    Returns:
        Same shape, in [-1, 1].
    Source: projected signed gradient ascent, Madry et al. 2018.
    """
    scale = torch.from_numpy(spread).float()
    before = scorer.logits(pixels)
    others = torch.arange(len(scale)) != target
    change = torch.zeros_like(pixels)
    for _ in range(STEPS):
        change.requires_grad_(True)
        moved = (scorer.logits_with_grad(pixels + change) - before) / scale
        gain = moved[:, target] - OTHERS_WEIGHT * moved[:, others].abs().mean(1)
        (slope,) = torch.autograd.grad(gain.sum(), change)
        change = (change.detach() + RADIUS / 8 * slope.sign()).clamp(-RADIUS, RADIUS)
        change = (pixels + change).clamp(-1, 1) - pixels
    return pixels + change
