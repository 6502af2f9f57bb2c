"""Pools: cached, resumable, exactly what is drawn or lies in files, with the right labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from casl_bench.core.errors import UsageError
from casl_bench.domains.options import DataSource
from casl_bench.domains.rendering.captions import compatible
from casl_bench.domains.rendering.faces import DRAWING
from casl_bench.domains.rendering.renderer import Drawing
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import WordTokenizer
from casl_bench.models.unet import BackboneConfig, build_unet
from casl_bench.photos.celeba import Celeba
from casl_bench.photos.photo_dataset import PhotoDataset
from casl_bench.photos.unlabelled import AfhqDog
from casl_bench.training import pools
from casl_bench.training.pools import (
    RenderedPool,
    chosen_pictures,
    load_photographs,
    load_pool,
    photographs,
    with_regenerated,
)
from casl_bench.training.train_unet import UNET
from tests.support import layouts


def test_pool_is_what_the_renderer_draws(tmp_path: Path) -> None:
    pool = load_pool(DRAWING, 10, 0, cache_dir=tmp_path, flips=True)
    assert np.array_equal(pool.images, DRAWING.render(pool.factors))
    assert pool.flipped is not None
    assert pool.flipped_attribute.tolist() == list(range(10))
    one = DRAWING.flipped(pool.factors[3:4], "hat")
    assert np.array_equal(pool.flipped[3], DRAWING.render(one)[0])
    labels, other, column = pool.flipped_labels(torch.tensor([3, 4]))
    assert (labels ^ other).sum(1).tolist() == [1, 1]
    assert column.tolist() == [3, 4]
    pixels = pool.batch(torch.tensor([3]), flipped=True)
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
    monkeypatch.setattr(pools, "CHUNK", 4)
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
        pool.batch(torch.tensor([0]), flipped=True)


def test_every_eighth_picture_is_drawn_by_the_unet(tmp_path: Path) -> None:
    pool = load_pool(DRAWING, 17, 0, cache_dir=tmp_path, flips=True)
    config = BackboneConfig(
        name="untrained", image_size=64, patch_size=4, prediction="v", micro_batch=4,
        unet=UNET | {"out_channels": 48},
    )  # fmt: skip
    backbone = Backbone(config, build_unet(config.unet))
    mixed = with_regenerated(pool, backbone, 0, tmp_path)
    assert isinstance(mixed, RenderedPool)
    assert mixed.flipped is not None and pool.flipped is not None
    for new, old in ((mixed.images, pool.images), (mixed.flipped, pool.flipped)):
        changed = (new != old).any((1, 2, 3))
        assert changed.tolist() == [k % 8 == 0 for k in range(17)]
    passes = backbone.calls.unet_calls
    again = with_regenerated(pool, backbone, 0, tmp_path)
    assert backbone.calls.unet_calls == passes and np.array_equal(again.images, mixed.images)


@pytest.fixture
def portraits(tmp_path: Path) -> PhotoDataset:
    return Celeba(DataSource(layouts.write_celeba(tmp_path / "celeba", images=20)), 64)


def test_photographs_and_their_mirror_images_come_in_pairs(
    portraits: PhotoDataset, tmp_path: Path
) -> None:
    pool = load_photographs(portraits, 6, "train", tmp_path / "pools", mirrored=True)
    split = portraits.load("train", 6)
    assert split.attributes is not None and len(pool) == 12
    everything = torch.arange(12)
    found = pool.batch(everything)
    assert torch.equal(found[::2], split.pixels) and torch.equal(found[1::2], split.pixels.flip(3))
    assert torch.equal(pool.batch(everything, flipped=True), found.flip(3))
    assert torch.equal(pool.labels(everything), split.attributes.repeat_interleave(2, 0))
    plain = load_photographs(portraits, 6, "train", tmp_path / "pools", mirrored=False)
    assert len(plain) == 6 and torch.equal(plain.batch(torch.arange(6)), split.pixels)
    assert torch.equal(plain.batch(torch.arange(6), flipped=True), split.pixels)


def test_photographs_are_read_once_for_as_long_as_no_file_changes(
    portraits: PhotoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "pools"
    first = load_photographs(portraits, 6, "train", kept, mirrored=True)
    with monkeypatch.context() as patch:
        patch.setattr(PhotoDataset, "load", None)
        again = load_photographs(portraits, 6, "train", kept, mirrored=True)
        with pytest.raises(TypeError):
            load_photographs(portraits, 5, "train", kept, mirrored=True)
        with pytest.raises(TypeError):
            load_photographs(portraits, 2, "validation", kept, mirrored=True)
    assert np.array_equal(first.images, again.images)
    (name, *_) = portraits.load("train", 1).image_ids
    image = tmp_path / "celeba" / "img_align_celeba" / name
    image.write_bytes(layouts.encoded_picture(99, 109))
    other = Celeba(DataSource(tmp_path / "celeba"), 64)
    changed = load_photographs(other, 6, "train", kept, mirrored=True)
    assert (changed.images != first.images).any((1, 2, 3)).tolist() == [True] + [False] * 5


def test_what_is_held_out_is_neither_trained_on_nor_mirrored(
    portraits: PhotoDataset, tmp_path: Path
) -> None:
    pictures = photographs(portraits, mirrored=True)
    assert (pictures.images, pictures.most_held_out) == (16, 2)
    pool = pictures.load("heldout", 2, 0, tmp_path / "pools", True)
    assert not pool.mirrored and len(pool) == 2
    assert torch.equal(pool.batch(torch.arange(2)), portraits.load("validation", 2).pixels)


def test_captions_of_photographs_are_true_of_them_and_fit(
    portraits: PhotoDataset, tmp_path: Path
) -> None:
    pictures = photographs(portraits, mirrored=True)
    tokens = WordTokenizer(pictures.words, pictures.context_length)
    labels = torch.rand(300, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    column = {name: k for k, name in enumerate(pictures.attributes)}
    seen = set[str]()
    for manner, writer in pictures.writers:
        rng = torch.Generator().manual_seed(1)
        captions = writer.describe(labels, rng)
        tokens(captions.texts)
        assert bool(compatible(captions.statements, labels).diagonal().all()), manner
        said = dict(zip(captions.texts, captions.statements, strict=True))
        # A concept's own words are a caption, and state its attribute alone.
        assert said["person with blond hair"].nonzero().tolist() == [[column["blond_hair"]]]
        assert "person" not in said, "the source is true of everybody"
        for text in captions.texts:
            if "with blond hair" in text and "without blond hair" not in text:
                assert said[text][column["blond_hair"]] == 1
        ways = {writer.contrasts(rng)[k][column["smiling"]] for _ in range(40) for k in (0, 1)}
        assert {"face", "smiling face"} < ways
        assert {f"a {manner} with smiling", f"a {manner} without smiling"} < ways
        seen |= set(captions.texts)
    assert any("showing no" in text for text in seen) and any("that has" in text for text in seen)
    assert pictures.prompts[column["smiling"]] == ("face", "smiling face")
    assert pictures.prompts[column["big_nose"]] == (
        "a photo without big nose", "a photo with big nose",
    )  # fmt: skip
    tokens([text for pair in pictures.prompts for text in pair])


def test_photographs_without_labels_have_none_to_train_on(tmp_path: Path) -> None:
    dogs = AfhqDog(DataSource(layouts.write_afhq(tmp_path / "dogs", images=10)), 64)
    pool = load_photographs(dogs, 4, "train", tmp_path / "pools", mirrored=True)
    assert pool.batch(torch.tensor([1])).shape == (1, 3, 64, 64)
    with pytest.raises(UsageError, match="afhq_dog has no labels"):
        pool.labels(torch.tensor([1]))


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="either --domain or --dataset"):
        chosen_pictures("rendered_dogs", "celeba", tmp_path)
    with pytest.raises(UsageError, match="rendered pictures have no folder"):
        chosen_pictures("rendered_dogs", None, tmp_path)
    with pytest.raises(UsageError, match="is rendered"):
        chosen_pictures(None, "rendered_dogs", tmp_path)
    with pytest.raises(UsageError, match="no images of celeba"):
        chosen_pictures(None, "celeba")
    with pytest.raises(UsageError, match="did you mean 'celeba"):
        chosen_pictures(None, "celeb", tmp_path)
