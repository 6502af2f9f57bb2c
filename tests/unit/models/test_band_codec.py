"""Cosine bands lose nothing, and a backbone in bands predicts the same eps as its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from casl_bench.models.backbone import Backbone
from casl_bench.models.band_codec import (
    GATE_LIMIT,
    BandCodec,
    BandStatistics,
    band_statistics,
    from_bands,
    to_bands,
)


def _images(count: int = 64, size: int = 16) -> Tensor:
    """Smooth pictures with a little noise: bands of very different spreads."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, 2, 2, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return 0.4 * smooth + 0.02 * torch.randn(count, 3, size, size, generator=rng) + 0.1


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_lossless_and_orthonormal(patch_size: int) -> None:
    x = _images()
    bands = to_bands(x, patch_size)
    assert bands.shape == (64, 3 * patch_size**2, 16 // patch_size, 16 // patch_size)
    assert torch.allclose(from_bands(bands, patch_size), x, atol=1e-5)
    assert torch.allclose(bands.pow(2).sum(), x.pow(2).sum(), rtol=1e-5)


def test_the_first_band_of_each_colour_is_its_mean() -> None:
    x = _images(2)
    means = torch.nn.functional.avg_pool2d(x, 4)
    assert torch.allclose(to_bands(x, 4)[:, ::16] / 4, means, atol=1e-5)


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.5, 4e-5])
def test_inputs_and_targets_have_unit_variance_and_tell_the_noise(alpha_bar: float) -> None:
    x_0 = _images()
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    codec = BandCodec(4, band_statistics(x_0, 4))
    coloured = codec.colour(noise)
    assert torch.allclose(codec.whiten(coloured), noise, atol=1e-4)
    x_t = alpha_bar**0.5 * x_0 + (1 - alpha_bar) ** 0.5 * coloured
    target = codec.target(x_0, noise, alpha_bar)
    for values in (codec.input(x_t, alpha_bar), target):
        spread = values.std((0, 2, 3))
        assert torch.allclose(spread, torch.ones_like(spread), atol=0.12)
    assert torch.allclose(codec.eps(target, x_t, alpha_bar), coloured, atol=1e-4)
    # An error of the output, as one of plain v in units of the noise.
    a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    eps = to_bands(codec.whiten(codec.eps(target + 0.1, x_t, alpha_bar)), 4)
    error = (eps - to_bands(noise, 4)) / a
    weight = codec.v_weight(torch.tensor(alpha_bar).view(1, 1, 1))
    assert torch.allclose(error**2, 0.01 * weight.expand_as(error), rtol=0.05, atol=2e-4 * s / a)


@pytest.mark.parametrize("alpha_bar", [0.9, 0.5, 4e-5])
def test_a_gate_lets_noise_past_the_network_where_the_image_is_known(alpha_bar: float) -> None:
    x_0 = _images()
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    statistics = band_statistics(x_0, 4)
    codec, a, s = BandCodec(4, statistics), alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    sample = codec.input(a * x_0 + s * codec.colour(noise), alpha_bar)
    target = codec.target(x_0, noise, alpha_bar)
    ratio = (torch.tensor(statistics.std) / torch.tensor(statistics.noise))[:, None, None]
    spread = (alpha_bar * ratio**2 + 1 - alpha_bar).sqrt()
    known = (to_bands(x_0, 4) - codec.mean) / codec.std
    gate = (a * ratio / s) / (a * ratio / s).clamp(max=GATE_LIMIT)
    output = torch.cat([-spread / s * known, gate.expand_as(known)], 1)
    assert torch.allclose(codec.v(output, sample, alpha_bar), target, atol=1e-4)
    shut = torch.cat([target, torch.zeros_like(target)], 1)
    assert torch.equal(codec.v(shut, sample, alpha_bar), target)


def test_bands_of_unit_spread_and_no_mean_are_plain_v() -> None:
    x_0 = _images(4)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    codec = BandCodec(4, BandStatistics(mean=(0.0,) * 48, std=(1.0,) * 48, noise=(1.0,) * 48))
    v = from_bands(codec.target(x_0, noise, 0.3), 4)
    assert torch.allclose(v, 0.3**0.5 * noise - 0.7**0.5 * x_0, atol=1e-5)


def test_a_backbone_in_bands(make_backbone: Callable[..., Backbone]) -> None:
    statistics = band_statistics(_images(), 2)
    backbone = make_backbone(patch_size=2, prediction="v", bands=statistics)
    x_t, t = _images(4), 300
    codec, alpha_bar = BandCodec(2, statistics), backbone.schedule.alpha_bar(t)
    sample = codec.input(x_t, alpha_bar)
    with torch.no_grad():
        v = codec.v(backbone.unet(sample, t).sample, sample, alpha_bar)
    assert torch.equal(backbone.eps(x_t, t), codec.eps(v, x_t, alpha_bar))


def test_bands_that_do_not_fit_are_refused(make_backbone: Callable[..., Backbone]) -> None:
    statistics = band_statistics(_images(), 2)
    for settings in ({"prediction": "eps"}, {"patch_size": 4}):
        with pytest.raises(ValidationError, match="bands need"):
            make_backbone(**{"patch_size": 2, "prediction": "v", "bands": statistics} | settings)
