"""Changing codes over a range: nothing where nothing changes, the whole where all is exchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from casl_bench.conformance.toy_domain import TIMESTEPS, ToyTasks
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.sae.dictionaries.controls import RawChannels
from casl_bench.sae.dictionary import SaeConfig
from casl_bench.sae.sae import HSpaceSae
from casl_bench.sae_track import edits
from casl_bench.sae_track.edits import Walk


@pytest.fixture(scope="module")
def tasks() -> ToyTasks:
    return ToyTasks()


def raw(channels: int) -> HSpaceSae:
    """Codes are h itself."""
    sae = RawChannels(SaeConfig(d_in=channels, d_sae=channels, k=1))
    sae.set_weights(torch.eye(channels), torch.eye(channels), torch.zeros(channels))
    steps = len(TIMESTEPS)
    return HSpaceSae(sae, TIMESTEPS, torch.zeros(steps, channels), torch.ones(steps))


def test_a_walk_is_the_places_of_its_range() -> None:
    walk = Walk.of((0, 100, 400, 700, 900), 100, 800)
    assert (walk.low, walk.high, walk.middle, walk.places) == (1, 3, 2, [1, 2, 3])
    nearest = Walk.of((0, 100, 900), 300, 600)
    assert nearest.places == [1]


@pytest.mark.parametrize("site", ["mid", "up_0"])
def test_no_change_gives_the_plain_images(tasks: ToyTasks, site: str) -> None:
    backbone, test = tasks.domain.backbone, tasks.test
    walk = Walk.of(TIMESTEPS, 0, 10_000)
    plain = ddim_generation(backbone, test.x_T, TIMESTEPS).cpu()
    images = edits.generate(backbone, test.x_T, walk, site, lambda h, place, rows: h)
    assert torch.allclose(images, plain, atol=1e-5)
    sae = raw(backbone.h_shape[0])
    latents = torch.arange(3)
    still = edits.steer(sae, torch.zeros(3, 4, 4), latents, torch.ones(4), walk)
    if site == "mid":
        same = edits.generate(backbone, test.x_T, walk, site, still)
        assert torch.allclose(same, plain, atol=1e-5)


def test_edits_made_together_are_those_made_alone(tasks: ToyTasks) -> None:
    """Two edits of three and four rows, over micro-batches of four."""
    backbone, x_T = tasks.domain.backbone, tasks.test.x_T
    walk = Walk.of(TIMESTEPS, 0, 10_000)
    rows = torch.tensor([0, 1, 2, 0, 1, 2, 3])
    scale = torch.tensor([0.5, 1.0, 1.5, 2.0])

    def louder(h: torch.Tensor, place: int, rows: slice) -> torch.Tensor:
        return h * (1 + scale[rows])[:, None, None, None]

    def flipped(h: torch.Tensor, place: int, rows: slice) -> torch.Tensor:
        return h.flip(-1) if place else h

    both = edits.together([(3, flipped), (4, louder)])
    found = edits.generate(backbone, x_T[rows], walk, "mid", both)
    assert torch.equal(found[:3], edits.generate(backbone, x_T[:3], walk, "mid", flipped))
    assert torch.equal(found[3:], edits.generate(backbone, x_T, walk, "mid", louder))
    assert not torch.allclose(found[:3], found[3:6])


def test_exchanging_all_codes_exchanges_h(tasks: ToyTasks) -> None:
    backbone = tasks.domain.backbone
    channels = backbone.h_shape[0]
    sae, walk = raw(channels), Walk.of(TIMESTEPS, 0, 10_000)
    h, other = torch.randn(2, 2, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    change = edits.interchange(sae, lambda place: other, torch.arange(channels), walk)
    assert torch.allclose(change(h, walk.low, slice(0, 2)), other, atol=1e-5)
    few = edits.interchange(sae, lambda place: other[:, :2], torch.arange(2), walk)
    found = few(h, walk.low, slice(0, 2))
    assert torch.allclose(found[:, :2], other[:, :2], atol=1e-5)
    assert torch.equal(found[:, 2:], h[:, 2:])
    second = few(h[1:], walk.low, slice(1, 2))
    assert torch.allclose(second[:, :2], other[1:, :2], atol=1e-5)


def test_ablation_takes_latents_away_and_leaves_the_rest(tasks: ToyTasks) -> None:
    channels = tasks.domain.backbone.h_shape[0]
    walk = Walk.of(TIMESTEPS, 0, 10_000)
    h = torch.randn(2, channels, 4, 4)
    found = edits.ablate(raw(channels), torch.tensor([1]), walk)(h, walk.high, slice(0, 2))
    assert float(found[:, 1].abs().max()) < 1e-6
    assert torch.equal(found[:, 2:], h[:, 2:])


def test_a_shift_is_scaled_by_the_timestep_and_the_row(tasks: ToyTasks) -> None:
    channels = tasks.domain.backbone.h_shape[0]
    sae = raw(channels)
    scale = torch.tensor([2.0, 1.0, 1.0, 1.0][: len(TIMESTEPS)])
    sae = HSpaceSae(sae.sae, TIMESTEPS, sae.mean, scale)
    walk = replace(Walk.of(TIMESTEPS, 0, 10_000), low=0)
    change = edits.steer(
        sae, torch.ones(1, 4, 4), torch.tensor([3]), torch.tensor([1.0, 5.0]), walk
    )
    h = torch.zeros(2, channels, 4, 4)
    found = change(h, 0, slice(0, 2))
    assert found[0, 3, 0, 0] == 2 and found[1, 3, 0, 0] == 10
    assert change(h, 1, slice(0, 2))[1, 3, 0, 0] == 5
