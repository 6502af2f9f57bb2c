"""DiffusionCLIP: a copy of the U-Net is fine-tuned for each concept until the text is obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from casl_bench.backbones.backbone import Backbone
from casl_bench.backbones.schedule import linspace_timesteps
from casl_bench.concepts.clip_direction import log_directional_loss
from casl_bench.core.errors import InputError
from casl_bench.inversion.ddim import ddim_step, generation_steps, predict_x_0
from casl_bench.methods.method import (
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.weight_edits import WeightEditor

Variant = Literal["full", "saving"]


class DiffusionClipConfig(MethodConfig):
    fit_steps: int = 120
    batch_size: int = 4
    learning_rate: float = 1e-4
    growth: float = 1.3
    epochs: int = 5
    clip_weight: float = 3.0
    l1_weight: float = 1.0
    pixel_noise: float = 0.1
    t_0: int = 500
    train_steps: int = 6
    variant: Variant = "full"


class DiffusionClipEditor(WeightEditor):
    def __init__(self, backbone: Backbone, t_start: int, delta: Mapping[str, Tensor], cost: FitCost) -> None:
        super().__init__(backbone, t_start, cost)
        self._delta = dict(delta)

    def weight_delta(self) -> Mapping[str, Tensor]:
        return self._delta

    def state(self) -> dict[str, Tensor]:
        return dict(self._delta)


def step_losses(
    model: Backbone,
    x_start: Tensor,
    steps: Sequence[tuple[int, int]],
    variant: Variant,
    loss_of: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    x_t = x_start
    for t, t_next in steps:
        ab_t, ab_next = model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next)
        eps = model.eps_with_grad(x_t, t)
        if variant == "saving":
            yield loss_of(predict_x_0(x_t, eps, ab_t))
            eps = eps.detach()
        x_t = ddim_step(x_t, eps, eps, ab_t, ab_next)
    if variant == "full":
        yield loss_of(x_t)


@register_method
class DiffusionClip:
    info: ClassVar[MethodInfo] = MethodInfo(
        name="diffusionclip",
        title="DiffusionCLIP",
        source="Kim et al., CVPR 2022",
        version=1,
        supervision="text",
        space="weights",
    )

    def __init__(self, config: DiffusionClipConfig | None = None, **settings: object) -> None:
        self.config = config or DiffusionClipConfig.model_validate(settings)

    def fit(self, task: EditTask) -> DiffusionClipEditor:
        config, clip, store, generator = self.config, task.guide_clip, task.trajectories, task.generator
        backbone = task.backbone
        place = min(range(len(store.timesteps)), key=lambda s: abs(store.timesteps[s] - config.t_0))
        t_start = store.timesteps[place]
        steps = list(generation_steps(linspace_timesteps(config.train_steps, t_start)))
        direction = clip.text_direction(task.concept.source_prompt, task.concept.target_prompt)
        twin = backbone.twin()
        twin.unet.requires_grad_(True)
        optimiser = torch.optim.Adam(twin.unet.parameters(), lr=config.learning_rate)
        self.log = []
        done = 0
        while done < config.fit_steps:
            index = torch.randperm(len(store), generator=generator)[: config.batch_size]
            original = store.x_t(0)[index]
            def loss_of(edited):
                noise = config.pixel_noise * torch.randn(original.shape, generator=generator)
                with torch.no_grad():
                    before = clip.encode_image((original + noise).clamp(-1, 1))
                after = clip.encode_image((edited + noise).clamp(-1.05, 1.05))
                l_clip = log_directional_loss(after, before, direction).mean()
                l1 = (edited - original).abs().mean()
                self.log.append((float(l_clip.detach()), float(l1.detach())))
                return config.clip_weight * l_clip + config.l1_weight * l1
            for loss in step_losses(twin, store.x_t(place)[index], steps, config.variant, loss_of):
                lr = config.learning_rate
                if config.growth:
                    lr *= config.growth ** (done * config.epochs // config.fit_steps)
                else:
                    lr *= 1 - done / config.fit_steps
                for group in optimiser.param_groups:
                    group["lr"] = lr
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                done += 1
                if done >= config.fit_steps: break
        frozen = backbone.unet.state_dict()
        delta = {n: (p.detach() - frozen[n]) for n, p in twin.unet.state_dict().items()}
        return DiffusionClipEditor(backbone, t_start, delta, FitCost(sum(d.numel() for d in delta.values())))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DiffusionClipEditor:
        raise NotImplementedError
