"""Spoiling keeps shape and range, belongs to its generator and does what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from casl_bench.training.degrade import blur, compress, degrade, resample, shift


@pytest.fixture
def images() -> Tensor:
    return torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_degrade_is_seeded_bounded_and_leaves_its_input(images: Tensor) -> None:
    kept = images.clone()
    first = degrade(images, torch.Generator().manual_seed(1))
    assert torch.equal(first, degrade(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, degrade(images, torch.Generator().manual_seed(2)))
    assert torch.equal(images, kept)
    assert first.shape == images.shape and float(first.abs().max()) <= 1


def test_all_clean_changes_nothing(images: Tensor) -> None:
    assert torch.equal(degrade(images, torch.Generator(), clean=1.0), images)


def test_copies_are_shifted_alike() -> None:
    x = torch.full((8, 3, 64, 64), -0.8)
    x[..., 26:38, 26:38] = 0.8
    out = degrade(torch.cat([x, x]), torch.Generator().manual_seed(5), copies=2, clean=0.0)
    square = (blur(out, 1.0).mean(1) > 0).float()
    rows = (square.sum(2) * torch.arange(64)).sum(1) / square.sum((1, 2))
    columns = (square.sum(1) * torch.arange(64)).sum(1) / square.sum((1, 2))
    assert float((rows[:8] - rows[8:]).abs().max()) < 0.3
    assert float((columns[:8] - columns[8:]).abs().max()) < 0.3
    assert float(rows[:8].std()) > 0.3


def test_parts(images: Tensor) -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    for same in (blur(flat, 1.0), resample(flat, 0.5), shift(flat, 2, -3)):
        assert torch.allclose(same, flat, atol=1e-5)
    assert float(blur(images, 1.0).std()) < 0.6 * float(images.std())
    assert torch.equal(shift(images, 1, 2)[..., 2:, 1:], images[..., :-2, :-1])


def test_compression_loses_more_when_stronger(images: Tensor) -> None:
    smooth = blur(images, 2.0)
    errors = [float((compress(smooth, s) - smooth).abs().mean()) for s in (0.0, 2.0, 10.0)]
    assert errors[0] < 0.01 and errors[0] < errors[1] < errors[2]
