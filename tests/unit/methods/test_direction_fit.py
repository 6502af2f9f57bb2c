"""CASL's alignment and the fit that it shares with Asyrp."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.methods.casl import (
    Casl,
    CaslAsymmetric,
    CaslSteer,
    CaslSteerConfig,
    CaslSteerSingle,
    ConceptAlignment,
    top_mask,
)
from casl_bench.methods.direction_fit import (
    DirectionFitConfig,
    OneScaleAdam,
    direction_fit_calls,
    directional_loss,
    fit_direction,
    log_directional_loss,
)
from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.method import EditTask
from casl_bench.methods.text_contrast import standardised_contrast


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


@pytest.mark.parametrize("steps", [1, 3, 4, 7])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("on_policy", [False, True])
def test_a_fit_moves_its_module_and_spends_what_was_foretold(
    task: EditTask, steps: int, asymmetric: bool, on_policy: bool
) -> None:
    shape = task.backbone.h_shape
    shift = torch.nn.Parameter(torch.zeros(shape))
    config = DirectionFitConfig(
        fit_steps=steps, batch_size=2, learning_rate=0.1, pixel_noise=0.0, on_policy=on_policy
    )
    window, rates = EditWindow(300, asymmetric=asymmetric), []
    with task.backbone.count_calls() as calls:
        spent = fit_direction(
            lambda h, t, temb: shift.expand(len(h), *shape), [shift], task, config, window,
            after_step=rates.append,
        )  # fmt: skip
    foretold = direction_fit_calls(config, window, task.trajectories.timesteps)
    assert spent == calls.unet_calls == foretold
    assert shift.detach().abs().sum() > 0
    assert rates == pytest.approx([0.1 * (1 - s / steps) for s in range(steps)])


def test_the_first_step_of_a_walk_is_shared_with_the_unedited_one(task: EditTask) -> None:
    """Where the module does nothing, both trajectories and their predictions are one."""
    shape, seen = task.backbone.h_shape, []
    nothing = torch.nn.Parameter(torch.zeros(shape))
    config = DirectionFitConfig(fit_steps=3, batch_size=2, learning_rate=0.0, l1_weight=1.0)

    def module(h: torch.Tensor, t: int, temb: torch.Tensor) -> torch.Tensor:
        seen.append((t, h))
        return nothing.expand(len(h), *shape)

    fit_direction(module, [nothing], task, config, EditWindow(300))
    visited = [t for t in reversed(task.trajectories.timesteps) if t >= 300]
    assert [t for t, _ in seen] == visited


def test_an_empty_window_is_refused(task: EditTask) -> None:
    with pytest.raises(InputError, match="t_edit"):
        Casl(t_edit=1000).fit(task)
    with pytest.raises(InputError, match="t_edit"):
        Casl(t_edit=1000, on_policy=False).fit(task)


def test_an_unfitted_alignment_changes_nothing(toy: ToyTasks) -> None:
    ones = torch.ones(toy.sae.d_sae, 4, 4)
    alignment = ConceptAlignment(toy.sae, ones, ones)
    h = torch.randn(2, toy.sae.channels, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not alignment(h, toy.sae.timesteps[1]).any()


def test_alignment_is_the_formula_and_the_mask_restricts_it(toy: ToyTasks) -> None:
    rng = torch.Generator().manual_seed(0)
    sae, t = toy.sae, toy.sae.timesteps[1]
    ones = torch.ones(sae.d_sae, 4, 4)
    alignment = ConceptAlignment(sae, ones, ones)
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


def test_latents_are_ranked_by_what_tells_the_concept_apart(toy: ToyTasks) -> None:
    """A latent that is always on loses to a fainter one that the concept switches."""
    draw = torch.Generator().manual_seed(0)
    codes = torch.rand(40, toy.sae.d_sae, 4, 4, generator=draw)
    codes[:, 3] += 50  # always on
    codes[:20, 7] += 2  # on with the concept
    codes[:20, 9] -= 2  # off with it
    contrast = standardised_contrast(codes[:20], codes[20:])
    alignment = ConceptAlignment(toy.sae, codes.mean(0), contrast)
    with torch.no_grad():
        alignment.W.fill_(1.0)
        alignment.W[:, 9] *= 0.9
    assert torch.argsort(alignment.latent_scores(), descending=True)[:2].tolist() == [7, 9]
    assert int(alignment.latent_scores("activation").argmax()) == 3
    units = torch.argsort(alignment.unit_scores(), descending=True)[: 2 * 16]
    assert {int(u) // 16 for u in units} == {7, 9}


def test_contrast_by_hand() -> None:
    present, absent = torch.tensor([[2.0, 1.0], [4.0, 1.0]]), torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    # Means 3 and 1, variances 1; what never varies tells nothing.
    assert standardised_contrast(present, absent).tolist() == [2.0, 0.0]


def test_shrinking_takes_columns_to_zero_and_keeps_their_direction(toy: ToyTasks) -> None:
    ones = torch.ones(toy.sae.d_sae, 4, 4)
    alignment = ConceptAlignment(toy.sae, ones, ones)
    with torch.no_grad():
        alignment.W[:, 0], alignment.W[0, 1] = 1.0, 0.5
    before = alignment.W.detach().clone()
    alignment.shrink(0.6)
    norms = before.norm(dim=0) - alignment.W.detach().norm(dim=0)
    assert float(norms[0]) == pytest.approx(0.6, abs=1e-5)
    assert not alignment.W[:, 1:].any()
    after = alignment.W.detach()[:, 0]
    assert float(torch.cosine_similarity(after, before[:, 0], dim=0)) > 0.9999


def test_steps_stay_as_unequal_as_gradients() -> None:
    """With one second moment a tensor; Adam makes them all alike."""
    moved = []
    for optimiser_class in (OneScaleAdam, torch.optim.Adam):
        x = torch.nn.Parameter(torch.zeros(3))
        optimiser = optimiser_class([x], lr=0.1)
        for _ in range(5):
            x.grad = torch.tensor([3.0, 0.3, 0.0])
            optimiser.step()
        moved.append(-x.detach())
    ours, adam = moved
    assert float(ours[0] / ours[1]) == pytest.approx(10, rel=1e-3)
    assert float(adam[0] / adam[1]) == pytest.approx(1, rel=1e-3)
    # Where all gradients are alike the two agree.
    assert float(ours.pow(2).mean().sqrt()) == pytest.approx(5 * 0.1, rel=1e-3)


def test_more_gathering_leaves_less_of_the_map(task: EditTask) -> None:
    left = []
    for gather in (0.0, 0.5, 1.0):
        editor = Casl(fit_steps=6, batch_size=2, ranked_images=4, gather=gather).fit(task)
        left.append(float(editor.alignment.W.norm(dim=0).sum()))
    assert left[0] > 1.2 * left[1] and left[1] > 1.2 * left[2]


def test_casl_and_its_probes_share_one_fit() -> None:
    assert Casl().fit_key() == CaslSteer().fit_key() == CaslSteerSingle().fit_key()
    assert Casl().fit_key() != Casl(learning_rate=0.1).fit_key()
    assert Casl().fit_key() == Casl(gain=1.0).fit_key() == Casl(ranking="activation").fit_key()
    # Each is fitted on the trajectories that it edits.
    assert Casl().fit_key() != CaslAsymmetric().fit_key()
    assert CaslSteer(asymmetric=True).fit_key() == CaslAsymmetric().fit_key()


def test_rows_are_what_their_names_say() -> None:
    for method, fault in (
        (Casl, {"asymmetric": True}),
        (CaslAsymmetric, {"asymmetric": False}),
        (CaslSteerSingle, {"k": 2}),
    ):
        with pytest.raises(ValidationError):
            method(**fault)


@pytest.mark.parametrize("reading", ["map", "decoder"])
def test_both_readings_of_the_probe_move_h_by_k_latents(task: EditTask, reading: str) -> None:
    config = CaslSteerConfig(fit_steps=3, batch_size=2, ranked_images=4, k=2, reading=reading)
    editor = CaslSteer(config).fit(task)
    h = task.trajectories.h(2)[:2]
    t = task.trajectories.timesteps[2]
    moved = editor.delta_h(h, t, 1.0)
    assert moved.shape == h.shape
    assert int(editor.mask.sum()) == 2
    torch.testing.assert_close(editor.delta_h(h, t, -2.0), -2 * moved)
