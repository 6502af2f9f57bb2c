"""DiffusionCLIP: its loss, its two variants, and what a fit leaves behind."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.diffusionclip import (
    DiffusionClip,
    DiffusionClipConfig,
    DiffusionClipEditor,
    image_loss,
    walk_losses,
)

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.diffusion.ddim import ddim_walk, predict_x_0
from casl_bench.methods.method import EditTask, FitCost


@pytest.fixture(scope="module")
def toy() -> ToyTasks:
    return ToyTasks()


@pytest.fixture
def task(toy: ToyTasks, tmp_path: Path) -> EditTask:
    return toy.task(DiffusionClip.info, tmp_path / "work")


class TwoPixels:
    """A CLIP that sees the first two numbers of an image."""

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)[:, :2]


def test_the_loss_by_hand() -> None:
    original = torch.zeros(1, 3, 1, 1)
    original[0, 0] = 1.0
    edited = original.clone()
    edited[0, 0], edited[0, 1] = 0.7, 0.3
    direction = torch.tensor([0.0, 1.0])
    config = DiffusionClipConfig(clip_weight=3.0, l1_weight=2.0, id_weight=5.0)
    loss = image_loss(edited, original, torch.zeros(1, 3, 1, 1), TwoPixels(), direction, config)  # type: ignore[arg-type]
    cosine = 1 / math.sqrt(2)  # of (-0.3, 0.3) with (0, 1)
    expected = 3 * -math.log((1 + cosine) / 2) + 2 * (0.6 / 3) + 5 * (1 - 0.7)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_on_one_step_the_variants_are_one(task: EditTask) -> None:
    # The step to the image, alpha_bar = 1, ends at the predicted clean image itself.
    x_t, steps = task.train.x_T[:2], [(600, -1)]
    gradients = []
    for variant in ("full", "saving"):
        twin = task.backbone.twin()
        twin.unet.requires_grad_(True)
        (loss,) = walk_losses(twin, x_t, steps, variant, lambda x: x.pow(2).mean())  # type: ignore[arg-type]
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in twin.unet.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert bool(gradients[0].any())


def test_full_ends_where_generation_ends_and_saving_sees_every_step(task: EditTask) -> None:
    backbone, x_t = task.backbone, task.train.x_T[:2]
    steps = [(600, 300), (300, 0), (0, -1)]
    seen: list[torch.Tensor] = []

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return x.sum()

    list(walk_losses(backbone, x_t, steps, "full", loss_of))
    torch.testing.assert_close(seen.pop(), ddim_walk(backbone, x_t, steps), atol=1e-4, rtol=1e-4)
    list(walk_losses(backbone, x_t, steps, "saving", loss_of))
    assert len(seen) == len(steps)
    first = predict_x_0(x_t, backbone.eps(x_t, 600), backbone.schedule.alpha_bar(600))
    torch.testing.assert_close(seen[0], first, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["full", "saving"])
def test_a_fit_makes_its_steps_and_leaves_the_backbone(task: EditTask, variant: str) -> None:
    weights = copy.deepcopy(task.backbone.unet.state_dict())
    method = DiffusionClip(fit_steps=5, batch_size=2, train_steps=2, variant=variant)
    editor = method.fit(task)
    for name, tensor in task.backbone.unet.state_dict().items():
        assert torch.equal(tensor, weights[name])
    passes = 5 * 2 * 2 if variant == "full" else 5 * 2
    assert editor.cost.unet_calls == passes
    assert any(bool(delta.any()) for delta in editor.weight_delta().values())


def test_no_change_is_the_reconstruction_at_any_strength(task: EditTask) -> None:
    weights = task.backbone.unet.state_dict()
    nothing = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    editor = DiffusionClipEditor(task.backbone, 999, nothing, FitCost())
    edits = editor.edit(task.train, [0.0, 1.0, -2.0])
    for edit in edits:
        torch.testing.assert_close(edit, task.train.reconstruction, atol=1e-5, rtol=1e-5)
