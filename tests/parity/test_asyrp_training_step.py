"""Asyrp's on-policy training against a plain re-implementation of the code's loop.

The re-implementation knows no encoder or decoder half: it runs the whole U-Net with a hook on its
middle block, once with delta_h and once without, as the authors' `denoising_step` does.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.asyrp import Asyrp, AsyrpConfig
from torch import Tensor
from torch.nn import functional

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.methods import direction_fit
from casl_bench.methods.delta_block import DeltaBlock, build_delta_block
from casl_bench.methods.direction_fit import descend
from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.method import EditTask

T_EDIT = 300
TOLERANCE = 1e-6


@pytest.fixture
def task(tmp_path: Path) -> EditTask:
    """A toy task whose U-Net has something to say: trajectories part at the first step."""
    task = ToyTasks().task(Asyrp.info, tmp_path / "work")
    with torch.no_grad():
        task.backbone.unet.conv_out.weight *= 100
    return task


def block_of(task: EditTask) -> DeltaBlock:
    backbone = task.backbone
    block = build_delta_block(
        "ddpm", backbone.h_shape[0], backbone.temb_dim, torch.Generator().manual_seed(5)
    )
    with torch.no_grad():  # not zero, as it starts: every parameter has a gradient
        block.last_layer.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(6))
    return block


def config(steps: int, **changes: float) -> AsyrpConfig:
    return AsyrpConfig(fit_steps=steps, batch_size=3, pixel_noise=0.0, **changes)


def plain_training(task: EditTask, block: DeltaBlock, settings: AsyrpConfig) -> list[float]:
    """Train the block in place; the loss of every step."""
    unet, clip = task.backbone.unet, task.guide_clip
    assert clip is not None
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    visited = [t for t in task.trajectories.timesteps if t >= T_EDIT]
    below = max(t for t in task.trajectories.timesteps if t < T_EDIT)
    source, target = clip.encode_text([task.concept.source_prompt, task.concept.target_prompt])
    direction = functional.normalize(target - source, dim=0)
    cosine = float(source @ target)
    optimiser = torch.optim.Adam(block.parameters(), lr=settings.learning_rate)

    def predicted_noise(x: Tensor, t: int, edited: bool) -> Tensor:
        def add(module: object, inputs: object, h: Tensor) -> Tensor:
            return h + block(h, task.backbone.time_embedding(t, len(h)))

        hook = unet.mid_block.register_forward_hook(add) if edited else None
        out: Tensor = unet(functional.pixel_unshuffle(x, 2), t).sample
        if hook is not None:
            hook.remove()
        return functional.pixel_shuffle(out, 2)

    order = torch.randperm(len(task.trajectories), generator=deepcopy(task.generator))
    x_origin = x_edited = task.trajectories.x_t(
        len(task.trajectories.timesteps) - 1, order[: settings.batch_size]
    )
    losses = []
    for place in range(settings.fit_steps):
        t = visited[-1 - place]
        t_next = visited[-2 - place] if place + 1 < len(visited) else below
        at, at_next = float(alpha_bar[t]), float(alpha_bar[t_next])
        # Step 1: Asyrp, on the edited trajectory, detached.
        x_edited = x_edited.detach()
        with torch.no_grad():
            et = predicted_noise(x_edited, t, edited=False)
        et_modified = predicted_noise(x_edited, t, edited=True)
        x0_t = (x_edited - et_modified * (1 - at) ** 0.5) / at**0.5
        x_edited = at_next**0.5 * x0_t + (1 - at_next) ** 0.5 * et
        # Step 2: DDIM, on the unedited one beside it.
        with torch.no_grad():
            et = predicted_noise(x_origin, t, edited=False)
            x0_t_origin = (x_origin - et * (1 - at) ** 0.5) / at**0.5
            x_origin = at_next**0.5 * x0_t_origin + (1 - at_next) ** 0.5 * et
        moved = clip.encode_image(x0_t.clamp(-1.05, 1.05)) - clip.encode_image(
            x0_t_origin.clamp(-1, 1)
        )
        towards = 1 - (moved @ direction) / (moved.norm(dim=1) + 1e-6)
        loss = -torch.log((2 - towards.clamp(max=2 - 1e-4)) / 2).mean()
        loss = loss + settings.l1_weight * cosine * functional.l1_loss(x0_t, x0_t_origin)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - place / settings.fit_steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def ours(
    task: EditTask, block: DeltaBlock, settings: AsyrpConfig, asymmetric: bool = True
) -> list[float]:
    """Train the block in place by the package's loop; the loss of every step."""
    losses = []

    def noted(optimiser: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
        losses.append(float(loss.detach()))
        descend(optimiser, loss, learning_rate)

    task = replace(task, generator=deepcopy(task.generator))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direction_fit, "descend", noted)
        direction_fit.fit_direction(
            lambda h, t, temb: block(h, temb), list(block.parameters()), task, settings,
            EditWindow(T_EDIT, asymmetric=asymmetric), as_asyrp=True,
        )  # fmt: skip
    return losses


def furthest(a: DeltaBlock, b: DeltaBlock) -> float:
    """Over all parameters that move delta_h.

    Of one channel a group, the norm takes what comes before it for every position alike back out:
    the gradients of these are rounding alone, which Adam makes as large as any.
    """
    names = [n for n, _ in a.named_parameters() if n != "conv1.bias" and "temb_proj" not in n]
    own, other = a.state_dict(), b.state_dict()
    return max(float((own[n] - other[n]).abs().max()) for n in names)


def test_one_step_is_that_of_a_plain_loop(task: EditTask) -> None:
    one, other, before = block_of(task), block_of(task), block_of(task)
    expected = plain_training(task, other, config(1))
    assert ours(task, one, config(1)) == pytest.approx(expected, rel=TOLERANCE)
    assert furthest(one, before) > 1000 * TOLERANCE
    assert furthest(one, other) < TOLERANCE


def test_a_walk_is_that_of_a_plain_loop(task: EditTask) -> None:
    """The losses of later steps are of the trajectories that the earlier ones have walked."""
    settings = config(3, learning_rate=1e-4)
    assert len([t for t in task.trajectories.timesteps if t >= T_EDIT]) == settings.fit_steps
    one, other = block_of(task), block_of(task)
    expected = plain_training(task, other, settings)
    assert ours(task, one, settings) == pytest.approx(expected, rel=TOLERANCE)
    assert furthest(one, other) < TOLERANCE


@pytest.mark.parametrize("fault", ["off_policy", "plain_step"])
def test_a_planted_fault_is_seen(task: EditTask, fault: str) -> None:
    """Training off the edited trajectory, or walking it by the plain step, is another training."""
    expected = plain_training(task, block_of(task), config(3))
    settings = config(3, on_policy=fault != "off_policy")
    found = ours(task, block_of(task), settings, asymmetric=fault != "plain_step")
    assert found[1:] != pytest.approx(expected[1:], rel=1e-3)
