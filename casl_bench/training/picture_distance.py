"""How far one set of pictures is from another: kernel distance on features of a fixed network.

The network's weights are random, drawn once from a fixed seed, so it was trained neither on
renders nor against any model, and a model cannot have been fitted to it. Means and standard
deviations of its channels see grain and blur; its last map sees what is where.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from casl_bench.models.micro_batch import row_blocks

SEED = 20261130
WIDTHS = (32, 64, 96, 128)
BLOCK = 64


def _layers() -> list[tuple[Tensor, Tensor]]:
    """Kernels [out, in, 5, 5] and biases [out]."""
    rng = torch.Generator().manual_seed(SEED)
    layers = []
    channels = 3
    for width in WIDTHS:
        kernel = torch.randn(width, channels, 5, 5, generator=rng) * (2 / (channels * 25)) ** 0.5
        layers.append((kernel, torch.randn(width, generator=rng) * 0.1))
        channels = width
    return layers


@torch.no_grad()
def features(pixels: Tensor) -> Tensor:
    """[n, 3, 64, 64], clamped to [-1, 1] → [n, 2688] float64."""
    layers, rows = _layers(), []
    for block in row_blocks(len(pixels), BLOCK):
        x, parts = pixels[block].clamp(-1, 1), []
        for kernel, bias in layers:
            x = functional.leaky_relu(functional.conv2d(x, kernel, bias, 2, 2), 0.2)
            parts += [x.mean((2, 3)), x.std((2, 3))]
        rows.append(torch.cat([*parts, x.flatten(1)], 1))
    return torch.cat(rows).double()


class KernelDistance:
    """Unbiased MMD² with a cubic kernel (Binkowski et al. 2018), 0 for the same distribution.

    Args:
        renders: pictures [n, 3, 64, 64], many: each feature is measured in their spread.
    """

    def __init__(self, renders: Tensor) -> None:
        known = features(renders)
        self._mean, self._spread = known.mean(0), known.std(0).clamp(min=1e-6)

    def __call__(self, found: Tensor, wanted: Tensor) -> float:
        """Of pictures [n, 3, 64, 64] to others [m, 3, 64, 64], at least two each."""
        x, y = ((features(pixels) - self._mean) / self._spread for pixels in (found, wanted))
        within = _off_diagonal(_kernel(x, x)) + _off_diagonal(_kernel(y, y))
        return float(within - 2 * _kernel(x, y).mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _off_diagonal(k: Tensor) -> Tensor:
    n = len(k)
    return (k.sum() - k.diagonal().sum()) / (n * (n - 1))
