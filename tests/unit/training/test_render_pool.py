"""Pools: cached, resumable, and exactly the renderer's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from casl_bench.domains.rendering.faces import DRAWING
from casl_bench.domains.rendering.renderer import Drawing
from casl_bench.models.backbone import Backbone
from casl_bench.models.unet import BackboneConfig, build_unet
from casl_bench.training import trainer as render_pool
from casl_bench.training.train_unet import UNET
from casl_bench.training.trainer import batch, flipped_labels, load_pool, with_regenerated


def test_pool_is_what_the_renderer_draws(tmp_path: Path) -> None:
    pool = load_pool(DRAWING, 10, 0, cache_dir=tmp_path, flips=True)
    assert np.array_equal(pool.images, DRAWING.render(pool.factors))
    assert pool.flipped is not None
    assert pool.flipped_attribute.tolist() == list(range(10))
    one = DRAWING.flipped(pool.factors[3:4], "hat")
    assert np.array_equal(pool.flipped[3], DRAWING.render(one)[0])
    labels, other, column = flipped_labels(pool, torch.tensor([3, 4]))
    assert (labels ^ other).sum(1).tolist() == [1, 1]
    assert column.tolist() == [3, 4]
    pixels = batch(pool, torch.tensor([3]), flipped=True)
    assert pixels.shape == (1, 3, 64, 64) and float(pixels.abs().max()) <= 1


def test_streams_differ_by_seed_and_split(tmp_path: Path) -> None:
    pools = [
        load_pool(DRAWING, 2, seed, split, tmp_path).images
        for seed, split in ((0, "train"), (1, "train"), (0, "heldout"))
    ]
    assert len(np.unique(np.concatenate(pools).reshape(6, -1), axis=0)) == 6


def test_a_hit_draws_nothing_and_a_killed_build_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_pool, "CHUNK", 4)
    drawn = []
    real = Drawing.render_parallel

    def counting(self, factors):  # type: ignore[no-untyped-def]
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(len(factors))
        return real(self, factors)

    monkeypatch.setattr(Drawing, "render_parallel", counting)
    with pytest.raises(KeyboardInterrupt):
        load_pool(DRAWING, 10, 0, cache_dir=tmp_path)
    drawn.clear()
    pool = load_pool(DRAWING, 10, 0, cache_dir=tmp_path)
    assert drawn == [2]
    assert np.array_equal(pool.images, DRAWING.render(pool.factors))
    load_pool(DRAWING, 10, 0, cache_dir=tmp_path)
    assert drawn == [2]


def test_without_flips_there_are_none(tmp_path: Path) -> None:
    pool = load_pool(DRAWING, 2, 0, cache_dir=tmp_path)
    assert pool.flipped is None
    with pytest.raises(Exception, match="no flipped"):
        batch(pool, torch.tensor([0]), flipped=True)


def test_every_eighth_picture_is_drawn_by_the_unet(tmp_path: Path) -> None:
    pool = load_pool(DRAWING, 17, 0, cache_dir=tmp_path, flips=True)
    config = BackboneConfig(
        name="untrained", image_size=64, patch_size=4, prediction="v", micro_batch=4, unet=UNET
    )
    backbone = Backbone(config, build_unet(config.unet))
    mixed = with_regenerated(pool, backbone, 0, tmp_path)
    assert mixed.flipped is not None and pool.flipped is not None
    for new, old in ((mixed.images, pool.images), (mixed.flipped, pool.flipped)):
        changed = (new != old).any((1, 2, 3))
        assert changed.tolist() == [k % 8 == 0 for k in range(17)]
    passes = backbone.calls.unet_calls
    again = with_regenerated(pool, backbone, 0, tmp_path)
    assert backbone.calls.unet_calls == passes and np.array_equal(again.images, mixed.images)
