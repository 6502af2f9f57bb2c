"""Its own sampler: guided by CLIP's gradient at every step of a DDIM generation; learns nothing."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_step, generation_steps, predict_x_0
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import (
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    UnfittedMethod,
    register_method,
)


class GuidedSampler:
    def __init__(self, task: EditTask) -> None:
        assert task.guide_clip is not None
        self.backbone, self.clip, self.cost = task.backbone, task.guide_clip, FitCost()
        concept = task.concept
        self.text = self.clip.text_direction(concept.source_prompt, concept.target_prompt)

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        edits = inversions.reconstruction[None].repeat(len(strengths), 1, 1, 1, 1)
        for place, strength in enumerate(strengths):
            for image in range(len(inversions)) if strength != 0 else ():  # never in batches
                one = inversions.take([image])
                edits[place, image] = self._sample(one.x_T, one.timesteps, strength)[0].cpu()
        return edits

    def _sample(self, x_t: Tensor, timesteps: Sequence[int], strength: float) -> Tensor:
        for t, t_next in generation_steps(timesteps):
            ab, ab_next = (self.backbone.schedule.alpha_bar(s) for s in (t, t_next))
            eps = self.backbone.eps(x_t, t)
            with torch.enable_grad():
                x_0 = predict_x_0(x_t, eps, ab).requires_grad_(True)
                (pull,) = torch.autograd.grad((self.clip.encode_image(x_0) @ self.text).sum(), x_0)
            guided = eps - strength * (1 - ab) ** 0.5 * pull
            x_t = ddim_step(x_t, guided, eps, ab, ab_next)
        return x_t

    def state(self) -> dict[str, Tensor]:
        return {}


@register_method
class OwnSampler(UnfittedMethod[MethodConfig]):
    info: ClassVar[MethodInfo] = MethodInfo(
        name="own_sampler", title="CLIP guidance", source="a stranger", version=1,
        supervision="text", deterministic=True,
    )  # fmt: skip

    def fit(self, task: EditTask) -> GuidedSampler:
        return GuidedSampler(task)
