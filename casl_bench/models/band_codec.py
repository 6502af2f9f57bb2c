"""Images as the cosine bands of their patches: what noise they get, what the network sees of them.

The bands of a patch differ in spread by a factor of thirty. White noise drowns the fine ones at
once, so a walk of few steps decides them in two or three, and inverts them badly. So each band has
noise of its own spread n, between white (equal) and whitened (like the data): a DDPM on images
whose bands are divided by n. As that is linear, x_t, eps and P_t can be kept in pixels, and DDIM
is the same there; only the noise is coloured (`BandCodec.colour`).

A network that sees bands raw must copy the noise of the small ones through its few channels, and
whatever error it makes there is grain in the picture. So each band has the preconditioning of
Karras et al. 2022 (eq. 7) with its own sigma_data: input and output have unit variance in every
band at every t. With y the bands of x_t, a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar), m and d
the mean and standard deviation of a band of the data, r = d / n, and white noise eps:

    y      = a x_0 + s n eps
    input = (y - a m) / n / sqrt(a² r² + s²)
    v     = (a r eps - s (x_0 - m) / d) / sqrt(a² r² + s²)    (plain v where n = d = 1, m = 0)

Where the image is known, as in an even background, v is (a r / s) input and a number. To copy 48
bands of noise for that through 64 channels, half of them dropped, leaves a weave over the picture.
So the network gives two numbers a band, a value and a gate, and the noise goes past it:

    v = value + gate · min(a r / s, GATE_LIMIT) · input
"""

from __future__ import annotations

import functools
import math

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional


class BandStatistics(BaseModel):
    """Of each band, colour by colour.

    Attributes:
        mean: over the training images.
        std: likewise.
        noise: standard deviation of the noise at alpha_bar = 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: tuple[float, ...]
    std: tuple[float, ...]
    noise: tuple[float, ...]


GATE_LIMIT = 3.0
"""Beyond it a gate would multiply small errors, and what is left to copy is little."""


@functools.lru_cache
def _cosines(patch_size: int) -> Tensor:
    """[P², P²]: an orthonormal DCT-II of patches; rows are bands, columns pixels."""
    k = torch.arange(patch_size, dtype=torch.float64)
    line = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / (2 * patch_size))
    line *= math.sqrt(2 / patch_size)
    line[0] *= math.sqrt(0.5)
    return torch.kron(line, line).float()


def to_bands(x: Tensor, patch_size: int) -> Tensor:
    """[n, 3, H, W] → [n, 3 P², H/P, W/P]."""
    kernel = _cosines(patch_size).to(x).view(-1, 1, patch_size, patch_size)
    return functional.conv2d(x, kernel.repeat(3, 1, 1, 1), stride=patch_size, groups=3)


def from_bands(bands: Tensor, patch_size: int) -> Tensor:
    """The inverse of `to_bands`, exact but for rounding."""
    n, _, h, w = bands.shape
    rows = _cosines(patch_size).to(bands).T @ bands.reshape(3 * n, patch_size**2, h * w)
    return functional.pixel_shuffle(rows.view_as(bands), patch_size)


def band_statistics(
    images: Tensor, patch_size: int, whitening: float = 0.5, data_std: float = 0.7
) -> BandStatistics:
    """Measured on images [n, 3, H, W] in [-1, 1], to six decimals.

    Args:
        images: of the training.
        patch_size: P.
        whitening: the noise of a band goes with this power of the band's spread: 0 is white noise,
            1 gives every band the same signal at every t.
        data_std: root mean square, over bands, of the data's spread in units of the noise.
    """
    bands = to_bands(images, patch_size).double()
    mean, std = bands.mean((0, 2, 3)), bands.std((0, 2, 3))
    noise = std**whitening
    noise = noise * (std / noise).pow(2).mean().sqrt() / data_std

    def rounded(values: Tensor) -> tuple[float, ...]:
        return tuple(round(v, 6) for v in values.tolist())

    return BandStatistics(mean=rounded(mean), std=rounded(std), noise=rounded(noise))


class BandCodec:
    """Between x_t in pixels and what the network takes and gives.

    Args:
        patch_size: P.
        statistics: of 3 P² bands.
    """

    def __init__(self, patch_size: int, statistics: BandStatistics) -> None:
        self.patch_size = patch_size
        self.mean, self.std, self.noise = (
            torch.tensor(v)[:, None, None]
            for v in (statistics.mean, statistics.std, statistics.noise)
        )

    def colour(self, white: Tensor) -> Tensor:
        """White noise [n, 3, H, W] as the noise of x_t, in pixels."""
        return from_bands(to_bands(white, self.patch_size) * self.noise.to(white), self.patch_size)

    def whiten(self, noise: Tensor) -> Tensor:
        """The inverse of `colour`."""
        return from_bands(to_bands(noise, self.patch_size) / self.noise.to(noise), self.patch_size)

    def input(self, x_t: Tensor, alpha_bar: Tensor | float) -> Tensor:
        """[n, 3 P², H/P, W/P] of unit variance.

        Args:
            x_t: [n, 3, H, W].
            alpha_bar: of all images, or [n, 1, 1, 1].
        """
        scale = 1 / (self.noise.to(x_t) * self._spread(x_t, alpha_bar))
        return scale * self._centred(x_t, alpha_bar)

    def v(self, output: Tensor, sample: Tensor, alpha_bar: Tensor | float) -> Tensor:
        """[n, 3 P², H/P, W/P]: value + gate · input, of the network's two numbers a band.

        Args:
            output: [n, 6 P², H/P, W/P], values before gates.
            sample: the network's input, of `input`.
            alpha_bar: of all images, or [n, 1, 1, 1].
        """
        value, gate = output.chunk(2, 1)
        ratio = (self.std / self.noise).to(sample)
        a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        return value + gate * (a * ratio / s).clamp(max=GATE_LIMIT) * sample

    def eps(self, v: Tensor, x_t: Tensor, alpha_bar: Tensor | float) -> Tensor:
        """The coloured noise that v stands for, in pixels; like x_t."""
        a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        spread = self._spread(x_t, alpha_bar)
        bands = s / spread**2 * self._centred(x_t, alpha_bar)
        bands += a * self.std.to(x_t) / spread * v
        return from_bands(bands, self.patch_size)

    def target(self, x_0: Tensor, white: Tensor, alpha_bar: Tensor | float) -> Tensor:
        """What v should be: [n, 3 P², H/P, W/P] of unit variance.

        Args:
            x_0: [n, 3, H, W].
            white: the noise before it is coloured; like x_0.
            alpha_bar: of all images, or [n, 1, 1, 1].
        """
        a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        ratio = (self.std / self.noise).to(x_0)
        clean = (to_bands(x_0, self.patch_size) - self.mean.to(x_0)) / self.std.to(x_0)
        noise = to_bands(white, self.patch_size)
        return (a * ratio * noise - s * clean) / self._spread(x_0, alpha_bar)

    def v_weight(self, alpha_bar: Tensor) -> Tensor:
        """What a squared error of v here is of that of plain v, both in units of the noise."""
        return ((self.std / self.noise).to(alpha_bar) / self._spread(alpha_bar, alpha_bar)) ** 2

    def _centred(self, x_t: Tensor, alpha_bar: Tensor | float) -> Tensor:
        return to_bands(x_t, self.patch_size) - alpha_bar**0.5 * self.mean.to(x_t)

    def _spread(self, like: Tensor, alpha_bar: Tensor | float) -> Tensor:
        ratio = (self.std / self.noise).to(like)
        return (alpha_bar * ratio**2 + (1 - alpha_bar)).sqrt()
