"""Edits by changed weights: against a naive reference, and what they must never depend on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.methods.method import Editor, FitCost, SupportsWeightDelta
from casl_bench.methods.weight_editor import WeightEditor, shift_weights
from casl_bench.models.backbone import Backbone

IDS = ("a", "b", "c", "d", "e")
WALK = (0, 100, 300, 600, 999)
STRENGTHS = (0.0, 1.0, -2.0, 0.5)


class FixedDelta(WeightEditor):
    def __init__(self, backbone: Backbone, t_start: int, delta: Mapping[str, Tensor]) -> None:
        super().__init__(backbone, t_start, FitCost())
        self.delta = delta

    def weight_delta(self) -> Mapping[str, Tensor]:
        return self.delta

    def state(self) -> dict[str, Tensor]:
        return dict(self.delta)


@pytest.fixture(scope="module")
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    return make_backbone("ddpm", prediction="v")


@pytest.fixture(scope="module")
def inversions(backbone: Backbone) -> Inversions:
    x_0 = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return invert(backbone, IDS, x_0, WALK)


@pytest.fixture(scope="module")
def delta(backbone: Backbone) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        name: 0.02 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in backbone.unet.state_dict().items()
    }


def naive_edit(
    backbone: Backbone, one: Inversions, delta: Mapping[str, Tensor], factor: float, t_start: int
) -> Tensor:
    """One image, every step by the whole U-Net, the changed one built as a network of its own."""
    unet = copy.deepcopy(backbone.unet)
    unet.load_state_dict({n: w + factor * delta[n] for n, w in unet.state_dict().items()})
    changed = Backbone(backbone.config, unet)
    x_t = one.x_T
    for t, t_next in zip(reversed(WALK), [*reversed(WALK[:-1]), -1], strict=True):
        eps = (changed if t <= t_start else backbone).eps(x_t, t)
        ab, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
        x_0 = (x_t - (1 - ab) ** 0.5 * eps) / ab**0.5
        x_t = ab_next**0.5 * x_0 + (1 - ab_next) ** 0.5 * eps
    return x_t[0]


@pytest.mark.parametrize("t_start", [0, 300, 450, 999])
def test_agrees_with_a_naive_reference(
    backbone: Backbone, inversions: Inversions, delta: dict[str, Tensor], t_start: int
) -> None:
    edits = FixedDelta(backbone, t_start, delta).edit(inversions, STRENGTHS)
    assert torch.equal(edits[0], inversions.reconstruction)
    for s, i in ((1, 0), (2, 4), (3, 2)):
        expected = naive_edit(backbone, inversions.take([i]), delta, STRENGTHS[s], t_start)
        torch.testing.assert_close(edits[s, i], expected, atol=1e-5, rtol=1e-4)
        assert float((edits[s, i] - inversions.reconstruction[i]).abs().max()) > 1e-3


def test_no_change_of_the_weights_is_the_reconstruction(
    backbone: Backbone, inversions: Inversions, delta: dict[str, Tensor]
) -> None:
    nothing = {name: torch.zeros_like(tensor) for name, tensor in delta.items()}
    for given in ({}, nothing):
        edits = FixedDelta(backbone, 300, given).edit(inversions, [1.0, -3.0])
        assert torch.equal(edits, inversions.reconstruction[None].repeat(2, 1, 1, 1, 1))


def test_an_image_and_a_strength_do_not_depend_on_the_others(
    backbone: Backbone, inversions: Inversions, delta: dict[str, Tensor]
) -> None:
    editor = FixedDelta(backbone, 300, delta)
    together = editor.edit(inversions, STRENGTHS)
    assert torch.equal(editor.edit(inversions.take([3]), STRENGTHS)[:, 0], together[:, 3])
    # A strength finds the weights as another one has left them.
    for order in ([3], [2, 3], [1, 2, 3]):
        alone = editor.edit(inversions, [STRENGTHS[s] for s in order])
        assert torch.equal(alone[-1], together[3])


def test_the_steps_above_t_start_are_made_once(
    backbone: Backbone, inversions: Inversions, delta: dict[str, Tensor]
) -> None:
    with backbone.count_calls() as calls:
        FixedDelta(backbone, 300, delta).edit(inversions, STRENGTHS)
    plain, changed, edited = 2, 3, 3
    assert calls.unet_calls == len(IDS) * (plain + edited * changed)
    with backbone.count_calls() as calls:
        FixedDelta(backbone, 300, delta).edit(inversions, [0.0, 0.0])
        FixedDelta(backbone, 300, delta).edit(inversions.take([]), STRENGTHS)
    assert calls.unet_calls == 0


def test_the_backbone_stays_frozen(
    backbone: Backbone, inversions: Inversions, delta: dict[str, Tensor]
) -> None:
    before = copy.deepcopy(backbone.unet.state_dict())
    FixedDelta(backbone, 999, delta).edit(inversions, STRENGTHS)
    after = backbone.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_are_linear_in_the_strength(backbone: Backbone, delta: dict[str, Tensor]) -> None:
    twin, w_0 = backbone.twin(), backbone.unet.state_dict()
    for factor in (2.0, -1.0, 0.25, 0.0):
        shift_weights(twin, backbone, delta, factor)
        for name, tensor in twin.unet.state_dict().items():
            torch.testing.assert_close(tensor - w_0[name], factor * delta[name], atol=1e-6, rtol=0)
    assert all(torch.equal(t, w_0[name]) for name, t in twin.unet.state_dict().items())


@pytest.mark.parametrize("name, shape", [("no_such.weight", (3,)), ("conv_in.bias", (9,))])
def test_a_delta_that_does_not_fit_is_refused(
    backbone: Backbone, inversions: Inversions, name: str, shape: tuple[int, ...]
) -> None:
    editor = FixedDelta(backbone, 300, {name: torch.zeros(shape)})
    with pytest.raises(InputError, match=r"no tensor .* of this name"):
        editor.edit(inversions, [1.0])


def test_strengths_must_be_finite(
    backbone: Backbone, inversions: Inversions, delta: dict[str, Tensor]
) -> None:
    with pytest.raises(InputError, match="finite"):
        FixedDelta(backbone, 300, delta).edit(inversions, [float("nan")])


def test_it_is_what_controls_look_for(backbone: Backbone, delta: dict[str, Tensor]) -> None:
    editor = FixedDelta(backbone, 300, delta)
    assert isinstance(editor, Editor)
    assert isinstance(editor, SupportsWeightDelta)
