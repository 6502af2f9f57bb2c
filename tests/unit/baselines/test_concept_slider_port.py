"""Concept sliders: the adapter, its target and its edit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.concept_slider_port import (
    ConceptSlider,
    ConceptSliderEditor,
    adapted_layers,
    guided_eps,
    inject_adapter,
    merged,
)

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import predict_x_0
from casl_bench.methods.method import EditTask, FitCost
from casl_bench.methods.weight_editor import shift_weights

RANK, ALPHA = 4, 1.0


@pytest.fixture(scope="module")
def toy() -> ToyTasks:
    return ToyTasks()


@pytest.fixture
def task(toy: ToyTasks, tmp_path: Path) -> EditTask:
    return toy.task(ConceptSlider.info, tmp_path / "work")


def adapter(task: EditTask, twin: object) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A LoRA in place, with B drawn too, so that it does something."""
    pairs = inject_adapter(twin.unet, RANK, ALPHA, task.generator)  # type: ignore[attr-defined]
    with torch.no_grad():
        for _, b in pairs.values():
            b.copy_(0.3 * torch.randn(b.shape, generator=task.generator))
    return pairs


def test_a_fresh_adapter_changes_nothing(task: EditTask) -> None:
    twin = task.backbone.twin()
    x_t = task.train.x_T[:2]
    before = twin.eps(x_t, 400)
    state = torch.get_rng_state()
    pairs = inject_adapter(twin.unet, RANK, ALPHA, task.generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(pairs) == set(adapted_layers(task.backbone.unet))
    torch.testing.assert_close(twin.eps(x_t, 400), before)


def test_the_merged_adapter_is_peft_s_at_every_scale(task: EditTask) -> None:
    backbone, x_t = task.backbone, task.train.x_T[:2]
    with_adapter = backbone.twin()
    pairs = adapter(task, with_adapter)
    editor = ConceptSliderEditor(backbone, (999, 0), pairs, ALPHA / RANK, FitCost())
    shifted = backbone.twin()
    plain = backbone.eps(x_t, 400)
    for scale in (1.0, -0.5, 2.0):
        for module in with_adapter.unet.modules():
            if hasattr(module, "scaling"):
                module.scaling["default"] = scale * ALPHA / RANK
        shift_weights(shifted, backbone, editor.weight_delta(), scale)
        expected = with_adapter.eps(x_t, 400)
        assert not torch.allclose(expected, plain, atol=1e-3)
        torch.testing.assert_close(shifted.eps(x_t, 400), expected, atol=1e-5, rtol=1e-4)


def test_merged_by_hand() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    expected = torch.tensor([[1.5, 3.0], [2.0, 4.0]])
    assert torch.equal(merged(a, b, 0.5), expected)
    convolution = merged(a[:, :, None, None], b[:, :, None, None], 0.5)
    assert torch.equal(convolution, expected[:, :, None, None])


class MeanPixel:
    """A CLIP of one number: the mean pixel."""

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((1, 2, 3))[:, None]


def test_the_target_moves_against_the_gradient(task: EditTask) -> None:
    """The log ratio of the target rises along -target's shift, by finite differences."""
    backbone, t = task.backbone, 300
    x_t = 0.3 * task.train.x_T[:1]
    noise = torch.zeros_like(x_t)
    clip, log_ratio = MeanPixel(), torch.tensor([2.0])
    eps = backbone.eps_with_grad(x_t, t).detach()
    target = guided_eps(backbone, clip, log_ratio, x_t, t, 1.0, noise)  # type: ignore[arg-type]
    doubled = guided_eps(backbone, clip, log_ratio, x_t, t, 2.0, noise)  # type: ignore[arg-type]
    torch.testing.assert_close(doubled - eps, 2 * (target - eps), atol=1e-6, rtol=1e-3)
    alpha_bar = backbone.schedule.alpha_bar(t)
    gradient = -(target - eps) / (1 - alpha_bar) ** 0.5

    def ratio(x: torch.Tensor) -> float:
        image = predict_x_0(x, backbone.eps_with_grad(x, t), alpha_bar).clamp(-1.05, 1.05)
        return float((clip.encode_image(image) @ log_ratio).sum())

    direction = gradient / gradient.norm()
    with torch.no_grad():
        slope = (ratio(x_t + 0.05 * direction) - ratio(x_t - 0.05 * direction)) / 0.1
    assert slope == pytest.approx(float(gradient.norm()), rel=0.05)


@pytest.mark.parametrize("objective", ["score", "direction"])
def test_a_fit_leaves_the_backbone_and_learns(task: EditTask, objective: str) -> None:
    weights = copy.deepcopy(task.backbone.unet.state_dict())
    settings = ConceptSlider.toy_config().model_dump() | {"objective": objective}
    editor = ConceptSlider(**settings).fit(task)
    for name, tensor in task.backbone.unet.state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert any(bool(delta.any()) for delta in editor.weight_delta().values())
    assert editor.cost.unet_calls > 0
    zero = editor.edit(task.train, [0.0])
    assert torch.equal(zero[0], task.train.reconstruction)


def test_a_window_without_steps_is_refused(task: EditTask) -> None:
    method = ConceptSlider(t_start=300, t_end=900)
    with pytest.raises(InputError, match="t_end = 900"):
        method.fit(task)
