"""CASL's alignment and the fit that it shares with Asyrp."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import predict_x_0
from casl_bench.diffusion.inversion import invert
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.casl import (
    Casl,
    CaslSteer,
    CaslSteerConfig,
    ConceptAlignment,
    mean_code,
    top_mask,
)
from casl_bench.methods.direction_fit import (
    DirectionFitConfig,
    directional_loss,
    fit_direction,
    log_directional_loss,
    predicted_steps,
    stored_prediction,
)
from casl_bench.methods.method import EditTask


@pytest.fixture(scope="module")
def toy() -> ToyTasks:
    return ToyTasks()


@pytest.fixture
def task(toy: ToyTasks, tmp_path: Path) -> EditTask:
    return toy.task(Casl.info, tmp_path / "work")


def test_directional_loss_by_hand() -> None:
    original = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    edited = torch.tensor([[1.0, 1.0], [1.0, -2.0], [1.0, 0.0]])
    loss = directional_loss(edited, original, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor([0.0, 2.0, 1.0]), atol=1e-4, rtol=0)


def test_losses_prefer_the_right_direction() -> None:
    original = torch.zeros(2, 2)
    edited = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    direction = torch.tensor([0.0, 1.0])
    for loss in (directional_loss, log_directional_loss):
        right, wrong = loss(edited, original, direction)
        assert right < 1e-4 < wrong
        assert torch.isfinite(wrong)


@pytest.mark.parametrize(("refinements", "tolerance"), [(0, 1e-3), (8, 2e-3)])
def test_prediction_from_the_trajectory_is_that_of_the_unet(
    task: EditTask, refinements: int, tolerance: float
) -> None:
    backbone, train = task.backbone, task.train
    store = TrajectoryStore.create(
        None, train.image_ids, train.timesteps, train.x_0.shape[1:], backbone.h_shape,
        refined=refinements > 0,
    )  # fmt: skip
    invert(
        backbone, train.image_ids, train.x_0, train.timesteps,
        collect=store.record, refinements=refinements,
    )  # fmt: skip
    index = torch.tensor([0, 2])
    assert len(predicted_steps(store)) == len(store.timesteps) - 1
    for step in predicted_steps(store):
        t = store.timesteps[step]
        x_t = store.x_t(step)[index]
        expected = predict_x_0(x_t, backbone.eps(x_t, t), backbone.schedule.alpha_bar(t))
        found = stored_prediction(store, backbone, step, index)
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, atol=tolerance, rtol=0)


def test_a_fit_lowers_its_loss_and_spends_one_pass_an_image(task: EditTask) -> None:
    assert task.guide_clip is not None
    shape = task.backbone.h_shape
    shift = torch.nn.Parameter(torch.zeros(shape))
    config = DirectionFitConfig(fit_steps=4, batch_size=2, learning_rate=0.1, pixel_noise=0.0)
    with task.backbone.count_calls() as calls:
        spent = fit_direction(
            lambda h, t, temb: shift.expand(len(h), *shape), [shift], task, config, t_edit=300
        )
    assert spent == calls.unet_calls == 4 * 2
    assert shift.detach().abs().sum() > 0


def test_an_empty_window_is_refused(task: EditTask) -> None:
    with pytest.raises(InputError, match="t_edit"):
        Casl(t_edit=999).fit(task)


def test_an_unfitted_alignment_changes_nothing(toy: ToyTasks) -> None:
    alignment = ConceptAlignment(toy.sae, torch.ones(toy.sae.d_sae, 4, 4))
    h = torch.randn(2, toy.sae.channels, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not alignment(h, toy.sae.timesteps[1]).any()


def test_alignment_is_the_formula_and_the_mask_restricts_it(toy: ToyTasks) -> None:
    rng = torch.Generator().manual_seed(0)
    sae, t = toy.sae, toy.sae.timesteps[1]
    alignment = ConceptAlignment(sae, torch.ones(sae.d_sae, 4, 4))
    with torch.no_grad():
        alignment.W.copy_(torch.randn(alignment.W.shape, generator=rng))
        alignment.b.copy_(torch.randn(alignment.b.shape, generator=rng))
    h = torch.randn(2, sae.channels, 4, 4, generator=rng)
    z = sae.encode(h, t)
    mask = top_mask(alignment.latent_scores(), 3)
    assert int(mask.sum()) == 3
    plain = torch.einsum("cd,ndhw->nchw", alignment.W, z) + alignment.b[:, None, None]
    masked = torch.einsum("cd,ndhw->nchw", alignment.W[:, mask], z[:, mask])
    scale = sae.scale[1]
    torch.testing.assert_close(alignment(h, t), plain * scale, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        alignment(h, t, mask=mask, bias=False), masked * scale, atol=1e-4, rtol=1e-4
    )


def test_mean_code_averages_images_and_timesteps(toy: ToyTasks) -> None:
    rng = torch.Generator().manual_seed(0)
    maps = [(torch.randn(3, toy.sae.channels, 4, 4, generator=rng), t) for t in toy.sae.timesteps]
    expected = torch.stack([toy.sae.encode(h, t).mean(0) for h, t in maps]).mean(0)
    torch.testing.assert_close(mean_code(toy.sae, maps), expected)


def test_casl_and_its_probe_share_one_fit() -> None:
    assert Casl().fit_key() == CaslSteer().fit_key()
    assert Casl().fit_key() != Casl(learning_rate=0.1).fit_key()
    assert Casl().fit_key() == Casl(gain=1.0).fit_key()


@pytest.mark.parametrize("reading", ["map", "decoder"])
def test_both_readings_of_the_probe_move_h_by_k_latents(task: EditTask, reading: str) -> None:
    config = CaslSteerConfig(fit_steps=3, batch_size=2, mean_code_images=4, k=2, reading=reading)
    editor = CaslSteer(config).fit(task)
    h = task.trajectories.h(2)[:2]
    t = task.trajectories.timesteps[2]
    moved = editor.delta_h(h, t, 1.0)
    assert moved.shape == h.shape
    assert int(editor.mask.sum()) == 2
    torch.testing.assert_close(editor.delta_h(h, t, -2.0), -2 * moved)
