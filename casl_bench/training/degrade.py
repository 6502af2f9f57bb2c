"""Pictures spoilt as edits spoil them: blur, noise, compression, resampling, small shifts, light.

What scores edits must neither mistake softness for an attribute nor fail on it, so every scorer is
trained and tested on these. All of it is torch and keyed by a generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS = 8
"""Rows of a batch are spoilt in this many groups; one group shares its settings."""


def degrade(pixels: Tensor, rng: torch.Generator, copies: int = 1, clean: float = 0.25) -> Tensor:
    """Spoil pictures at random.

    Args:
        pixels: [copies * n, 3, H, W] in [-1, 1]; H and W multiples of 8.
        rng: draws all settings and all noise.
        copies: rows i, n + i, … are spoilt with the same settings (but their own noise), as an
            edit and its original are.
        clean: share of groups left untouched.

    Returns:
        Same shape, in [-1, 1].
    """
    n = len(pixels) // copies
    out = pixels.clone()
    for group in torch.randperm(n, generator=rng).chunk(GROUPS):
        rows = torch.cat([group + c * n for c in range(copies)])
        if _uniform(rng) >= clean:
            out[rows] = _spoil(out[rows], rng)
    return out.clamp(-1, 1)


def _spoil(x: Tensor, rng: torch.Generator) -> Tensor:
    if _uniform(rng) < 0.6:
        # Cut towards 0: from 2 left to 3 right, no shift twice as likely as any other.
        x = shift(x, int(_uniform(rng, -3, 4)), int(_uniform(rng, -3, 4)))
    if _uniform(rng) < 0.3:
        x = resample(x, _uniform(rng, 0.45, 0.85))
    elif _uniform(rng) < 0.6:
        x = blur(x, _uniform(rng, 0.4, 1.3))
    if _uniform(rng) < 0.3:
        x = compress(x, _uniform(rng, 2.0, 10.0))
    if _uniform(rng) < 0.5:
        x = (x + _uniform(rng, -0.08, 0.08)) * _uniform(rng, 0.92, 1.08)
    if _uniform(rng) < 0.5:
        x = x + _uniform(rng, 0.01, 0.14) * torch.randn(x.shape, generator=rng)
    return x


def _uniform(rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def shift(x: Tensor, dx: int, dy: int) -> Tensor:
    """Move by whole pixels; the border is repeated."""
    h, w = x.shape[-2:]
    rows = (torch.arange(h) - dy).clamp(0, h - 1)
    columns = (torch.arange(w) - dx).clamp(0, w - 1)
    return x[..., rows, :][..., columns]


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; sigma in pixels."""
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    # Matrices with the border repeated: faster here than a depthwise convolution.
    return _filter_matrix(x.shape[-2], kernel) @ x @ _filter_matrix(x.shape[-1], kernel).T


def _filter_matrix(size: int, kernel: Tensor) -> Tensor:
    radius = len(kernel) // 2
    matrix = torch.zeros(size, size, dtype=kernel.dtype)
    for k, weight in enumerate(kernel):
        column = (torch.arange(size) + k - radius).clamp(0, size - 1)
        matrix[torch.arange(size), column] += weight
    return matrix


def resample(x: Tensor, scale: float) -> Tensor:
    """Down to `scale` of the size and up again."""
    small = F.interpolate(
        x, scale_factor=scale, mode="bilinear", antialias=True, recompute_scale_factor=True
    )
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear")


def compress(x: Tensor, strength: float) -> Tensor:
    """Quantise 8×8 cosine blocks as JPEG does.

    Args:
        x: [n, 3, H, W] in [-1, 1]; H and W multiples of 8.
        strength: growth of the quantiser's step with frequency, in grey levels; 2 is mild, 10 ugly.
    """
    n, c, h, w = x.shape
    k = torch.arange(8, dtype=x.dtype)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    dct[0] *= math.sqrt(0.5)
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    step = (1 + (1 + k[:, None] + k[None]) * strength) / 127.5
    coefficients = torch.round(dct @ blocks @ dct.T / step) * step
    return (dct.T @ coefficients @ dct).transpose(3, 4).reshape(n, c, h, w)
