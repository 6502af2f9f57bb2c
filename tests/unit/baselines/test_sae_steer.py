"""Retrieval, contrast of codes and the shift of steered latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from casl_bench_baselines.sae_steer import (
    SaeSteer,
    contrast_codes,
    large_activations,
    latent_shift,
    mean_code,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.text_contrast import retrieve
from casl_bench.models.backbone import EncoderState
from casl_bench.sae.dictionaries.relu import Relu, ReluConfig
from casl_bench.sae.sae import HSpaceSae

LATENTS, IMAGES, SIDE = 12, 16, 3
TIMESTEPS = (100, 400)
CONCEPT, OPPOSITE = 5, 9


def identity_sae() -> HSpaceSae:
    """Latent i reads and writes channel i: codes can be planted as they are."""
    config = ReluConfig(d_in=LATENTS, d_sae=LATENTS, k=1)
    sae = Relu(config)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(LATENTS))
        sae.W_dec.copy_(torch.eye(LATENTS))
    steps = len(TIMESTEPS)
    return HSpaceSae(sae, TIMESTEPS, torch.zeros(steps, LATENTS), torch.ones(steps))


def planted_store(seed: int) -> tuple[TrajectoryStore, Tensor, Tensor]:
    """Random codes; one latent is active at one place of the first half of the images alone.

    Another one is so in the other half.
    """
    draw = torch.Generator().manual_seed(seed)
    store = TrajectoryStore.create(
        None,
        [str(i) for i in range(IMAGES)],
        TIMESTEPS,
        (3, 4, 4),
        (LATENTS, SIDE, SIDE),
    )
    half = IMAGES // 2
    for step, t in enumerate(TIMESTEPS):
        h = torch.rand(IMAGES, LATENTS, SIDE, SIDE, generator=draw)
        h[:, [CONCEPT, OPPOSITE]] = 0
        h[:half, CONCEPT, 1, 2] = 20 + step
        h[half:, OPPOSITE, 0, 0] = 16
        state = EncoderState(torch.zeros(IMAGES, 3, 4, 4), t, h, torch.zeros(IMAGES, 1), ())
        store.record(step, slice(0, IMAGES), state)
    images = torch.arange(IMAGES)
    return store, images[:half], images[half:]


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_a_planted_latent_has_the_greatest_contrast(seed: int) -> None:
    store, present, absent = planted_store(seed)
    contrast = contrast_codes(identity_sae(), store, [0, 1], present, absent)
    scores = contrast.latent_scores()
    assert (int(scores.argmax()), int(scores.argmin())) == (CONCEPT, OPPOSITE)
    assert int(contrast.score.argmax()) == (CONCEPT * SIDE + 1) * SIDE + 2
    swapped = contrast_codes(identity_sae(), store, [0, 1], absent, present)
    torch.testing.assert_close(swapped.score, -contrast.score)
    torch.testing.assert_close(scores.sum(), torch.tensor(0.0), atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(st.floats(0.1, 50.0))
def test_contrast_does_not_depend_on_how_large_a_timesteps_code_is(scale: float) -> None:
    store, present, absent = planted_store(1)
    sae = identity_sae()
    before = contrast_codes(sae, store, [0, 1], present, absent).score
    state = EncoderState(
        torch.zeros(IMAGES, 3, 4, 4), 400, scale * store.h(1), torch.zeros(IMAGES, 1), ()
    )
    store.record(1, slice(0, IMAGES), state)
    after = contrast_codes(sae, store, [0, 1], present, absent).score
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-4)


def test_sizes_are_of_positive_activations_alone() -> None:
    store, present, absent = planted_store(2)
    images = torch.cat([present, absent])
    latents = torch.tensor([CONCEPT, OPPOSITE])
    sizes = large_activations(identity_sae(), store, [0, 1], images, latents, 1.0)
    assert sizes.tolist() == [21.0, 16.0]
    silent = large_activations(identity_sae(), store, [0, 1], absent, latents[:1], 0.99)
    assert silent.tolist() == [0.0]


def test_a_shift_peaks_at_its_size_where_the_latent_lives() -> None:
    maps = torch.zeros(3, SIDE, SIDE)
    maps[0, 1, 2], maps[0, 0, 0], maps[1, 2, 2] = 4.0, 1.0, 0.5
    shift = latent_shift(torch.tensor([8.0, -3.0, 5.0]), maps)
    assert (float(shift[0, 1, 2]), float(shift[0, 0, 0])) == (8.0, 2.0)
    assert float(shift[1].sum()) == float(shift[1, 2, 2]) == -3.0
    assert not shift[2].any()  # it lives nowhere


def test_retrieved_images_are_the_extremes_of_the_ranking(tmp_path: Path) -> None:
    task = ToyTasks().task(SaeSteer.info, tmp_path)
    clip, images, concept = task.guide_clip, task.train.x_0, task.concept
    assert clip is not None
    likeness = clip.encode_image(images) @ clip.text_direction(
        concept.source_prompt, concept.target_prompt
    )
    for share, count in ((0.01, 1), (0.25, 2), (0.5, 4)):
        present, absent = retrieve(clip, images, concept, share)
        assert len(present) == len(absent) == count
        assert not set(present.tolist()) & set(absent.tolist())
        others = set(range(len(images))) - set(present.tolist())
        assert likeness[present].min() >= likeness[sorted(others)].max()
        assert likeness[absent].max() <= likeness[present].min()


@pytest.mark.parametrize("suppress", [False, True])
def test_steering_is_linear_and_ranks_what_it_steers(suppress: bool, tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(SaeSteer.info, tmp_path)
    with task.backbone.count_calls() as calls:
        editor = SaeSteer(k=6, suppress=suppress, retrieved_share=0.25).fit(task)
    assert calls.unet_calls == editor.cost.unet_calls == 0
    state = editor.state()
    assert editor.cost.parameters == state["shift"].numel()
    assert set(editor.latent_ranking()[:6].tolist()) == set(state["latents"].tolist())
    if not suppress:
        assert bool((state["shift"] >= 0).all())
    h, t = task.trajectories.h(3), task.trajectories.timesteps[3]
    one = editor.delta_h(h, t, 1.0)
    assert bool(one.any())
    assert torch.equal(editor.delta_h(h, t, -1.0), -one)
    edits = editor.edit(toy.test, [0.0, 1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    assert not torch.equal(edits[1], edits[0])


def test_mean_code_averages_images_and_timesteps() -> None:
    sae, rng = ToyTasks().sae, torch.Generator().manual_seed(0)
    maps = [(torch.randn(3, sae.channels, 4, 4, generator=rng), t) for t in sae.timesteps]
    expected = torch.stack([sae.encode(h, t).mean(0) for h, t in maps]).mean(0)
    torch.testing.assert_close(mean_code(sae, maps), expected)
