"""Skip channels are dropped whole and at many rates; a step of training runs."""

from __future__ import annotations

import torch

from casl_bench.training.train_unet import drop_channels


def test_channels_are_dropped_whole_at_a_rate_of_each_image() -> None:
    skips = (torch.ones(400, 30, 2, 2), torch.ones(400, 10, 1, 1))
    dropped = drop_channels(skips, torch.Generator().manual_seed(0))
    kept = [d.flatten(2) for d in dropped]
    assert all(bool(((k == 0).all(2) | (k == 1).all(2)).all()) for k in kept)
    share = kept[0][:, :, 0].mean(1)
    assert abs(float(share.mean()) - 0.5) < 0.05
    # Uniform rates: some images keep nearly all, some nearly nothing.
    assert float((share < 0.1).float().mean()) > 0.05 < float((share > 0.9).float().mean())
    other = kept[1][:, :, 0].mean(1)
    assert float(torch.corrcoef(torch.stack([share, other]))[0, 1]) > 0.7, "one rate an image"
