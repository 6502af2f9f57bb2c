from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.methods.h_space_editor import (
    EditWindow,
    HSpaceEditor,
    generate_edits,
)
from casl_bench.methods.method import Editor, FitCost, SupportsDeltaH
from casl_bench.models.backbone import Backbone
from casl_bench.models.random_numbers import image_noise

IDS = ("a", "b", "c", "d", "e")
WALK = (0, 100, 300, 600, 999)
STRENGTHS = (0.0, 1.0, -2.0, 0.5)
WINDOWS = [
    EditWindow(300),
    EditWindow(300, asymmetric=True),
    EditWindow(300, t_boost=250),
    EditWindow(300, t_boost=700, asymmetric=True),
    EditWindow(600, t_end=601),
    EditWindow(0, t_end=301, asymmetric=True),
]


@pytest.fixture(scope="module")
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    return make_backbone("adm", learned_sigma=True)


@pytest.fixture(scope="module")
def inversions(backbone: Backbone) -> Inversions:
    x_0 = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return invert(backbone, IDS, x_0, WALK)


def bend(h: Tensor, t: int, temb: Tensor) -> Tensor:
    """A delta_h that depends on everything it is given."""
    return torch.roll(h, 1, dims=1) * (1 + t / 1000) + temb.mean(1)[:, None, None, None]


def naive_edit(
    backbone: Backbone, one: Inversions, strength: float, window: EditWindow, seed: int
) -> Tensor:
    """Edit one image at one strength as the formulas say, with no thought of cost."""
    x_t = one.x_T
    for t, t_next in zip(reversed(WALK), [*reversed(WALK[:-1]), -1], strict=True):
        state = backbone.encode(x_t, t)
        eps = edited = backbone.decode(state)
        if window.t_edit <= t < window.t_end:
            edited = backbone.decode(state, strength * bend(state.h, t, state.temb))
        direction = eps if window.asymmetric else edited
        ab = backbone.schedule.alpha_bar(t)
        ab_next = backbone.schedule.alpha_bar(t_next)
        sigma = 0.0
        if t < window.t_boost:
            sigma = ((1 - ab_next) / (1 - ab) * (1 - ab / ab_next)) ** 0.5
        x_0 = (x_t - (1 - ab) ** 0.5 * edited) / ab**0.5
        noise = image_noise((3, 16, 16), one.noise_keys, seed, f"quality boosting at t = {t}")
        x_t = ab_next**0.5 * x_0 + (1 - ab_next - sigma**2) ** 0.5 * direction + sigma * noise
    return x_t[0]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_agrees_with_the_formulas(
    backbone: Backbone, inversions: Inversions, window: EditWindow
) -> None:
    edits = generate_edits(backbone, inversions, STRENGTHS, bend, window, 7)
    assert edits.shape == (4, 5, 3, 16, 16)
    for s, i in ((1, 0), (2, 4), (3, 2)):
        expected = naive_edit(backbone, inversions.take([i]), STRENGTHS[s], window, 7)
        torch.testing.assert_close(edits[s, i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_an_edit_does_not_feel_its_batch(
    backbone: Backbone, inversions: Inversions, window: EditWindow
) -> None:
    edits = generate_edits(backbone, inversions, STRENGTHS, bend, window, 7)
    for i in range(5):
        alone = generate_edits(backbone, inversions.take([i]), STRENGTHS, bend, window, 7)
        assert torch.equal(alone[:, 0], edits[:, i])
    single = generate_edits(backbone, inversions, [-2.0], bend, window, 7)
    assert torch.equal(single[0], edits[2])
    backwards = generate_edits(
        backbone, inversions.take([4, 2, 0]), STRENGTHS[::-1], bend, window, 7
    )
    assert torch.equal(backwards, edits.flip(0)[:, [4, 2, 0]])


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_strength_zero_is_the_reconstruction(
    backbone: Backbone, inversions: Inversions, window: EditWindow
) -> None:
    with backbone.count_calls() as calls:
        edits = generate_edits(backbone, inversions, [0.0, -0.0], bend, window, 7)
    assert torch.equal(edits[0], inversions.reconstruction)
    assert torch.equal(edits[1], inversions.reconstruction)
    assert calls.unet_calls == 0


def test_an_empty_window_reconstructs(backbone: Backbone, inversions: Inversions) -> None:
    edits = generate_edits(backbone, inversions, [1.0, 2.0], bend, EditWindow(1000), 7)
    assert torch.equal(edits[0], inversions.reconstruction)
    assert torch.equal(edits[1], inversions.reconstruction)


@pytest.mark.parametrize(
    ("window", "encoder", "decoder"),
    [
        # Three edited steps (the first shared by 3 strengths), two plain ones.
        (EditWindow(300), 1 + 2 * 3 + 2 * 3, 3 * 3 + 2 * 3),
        # One more decoder pass an x_t that is edited.
        (EditWindow(300, asymmetric=True), 1 + 2 * 3 + 2 * 3, (3 + 1) + 2 * (3 + 3) + 2 * 3),
        # Until the window opens all strengths share one trajectory.
        (EditWindow(0, t_end=100), 4 + 1, 4 + 3),
        (EditWindow(1000), 5, 5),
    ],
    ids=["symmetric", "asymmetric", "late", "never"],
)
def test_no_pass_is_made_twice(
    backbone: Backbone, inversions: Inversions, window: EditWindow, encoder: int, decoder: int
) -> None:
    with backbone.count_calls() as calls:
        generate_edits(backbone, inversions, STRENGTHS, bend, window, 7)
    assert (calls.encoder, calls.decoder) == (5 * encoder, 5 * decoder)


def test_delta_h_is_asked_in_the_window_only(backbone: Backbone, inversions: Inversions) -> None:
    asked: list[tuple[int, int]] = []

    def spy(h: Tensor, t: int, temb: Tensor) -> Tensor:
        asked.append((t, len(h)))
        assert not torch.is_grad_enabled()
        assert h.is_contiguous()
        return torch.zeros_like(h)

    generate_edits(backbone, inversions, [1.0], spy, EditWindow(100, t_end=600), 7)
    assert asked == [(t, backbone.micro_batch) for t in (300, 300, 100, 100)]


def test_boosting_noise_belongs_to_seed_image_and_timestep(
    backbone: Backbone, inversions: Inversions
) -> None:
    window = EditWindow(1000, t_boost=400)
    boosted = generate_edits(backbone, inversions, [1.0, 2.0], bend, window, 7)
    assert torch.equal(boosted[0], boosted[1])
    assert not torch.allclose(boosted[0], inversions.reconstruction, atol=1e-2)
    other = generate_edits(backbone, inversions, [1.0], bend, window, 8)
    assert not torch.allclose(other[0], boosted[0], atol=1e-2)


def test_random_state_is_left_alone(backbone: Backbone, inversions: Inversions) -> None:
    before = torch.get_rng_state()
    generate_edits(backbone, inversions, [1.0], bend, EditWindow(300, t_boost=400), 7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_strengths_must_be_numbers(
    backbone: Backbone, inversions: Inversions, strength: float
) -> None:
    with pytest.raises(InputError, match="finite"):
        generate_edits(backbone, inversions, [1.0, strength], bend, EditWindow(300), 7)


def test_no_strengths_give_no_images(backbone: Backbone, inversions: Inversions) -> None:
    assert generate_edits(backbone, inversions, [], bend, EditWindow(300), 7).shape[0] == 0


class BendEditor(HSpaceEditor):
    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        return bend(h, t, temb)

    def state(self) -> dict[str, Tensor]:
        return {}


def test_an_editor_is_its_delta_h(backbone: Backbone, inversions: Inversions) -> None:
    window = EditWindow(300, t_boost=200, asymmetric=True)
    editor = BendEditor(backbone, window, noise_seed=7, cost=FitCost())
    assert isinstance(editor, Editor)
    assert isinstance(editor, SupportsDeltaH)
    edits = generate_edits(backbone, inversions, STRENGTHS, bend, window, 7)
    assert torch.equal(editor.edit(inversions, STRENGTHS), edits)
    state = backbone.encode(inversions.x_T, 999)
    expected = -2 * bend(state.h, 999, state.temb)
    torch.testing.assert_close(editor.delta_h(state.h, 999, -2.0), expected)


def test_planted_faults_are_noticed(
    backbone: Backbone, inversions: Inversions, monkeypatch: Any
) -> None:
    window = EditWindow(300, asymmetric=True)
    expected = naive_edit(backbone, inversions.take([1]), 1.0, window, 7)

    def error(**changes: Any) -> float:
        faulty: dict[str, Any] = {"strengths": [1.0], "delta_h": bend, "window": window} | changes
        edits = generate_edits(backbone, inversions, noise_seed=7, **faulty)
        return float((edits[0, 1] - expected).abs().max())

    assert error() < 1e-4
    assert error(strengths=[-1.0]) > 1e-2
    assert error(window=EditWindow(300)) > 1e-2
    assert error(window=EditWindow(301, asymmetric=True)) > 1e-2
    assert error(delta_h=lambda h, t, temb: bend(h, t - 1, temb)) > 1e-4
