"""Adds to x_T: the mean noise of images that the concept's text retrieves, minus that of others."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.text_contrast import retrieve
from casl_bench.models.backbone import Backbone


class NoiseShiftEditor:
    def __init__(self, backbone: Backbone, shift: Tensor) -> None:
        self.backbone, self.shift, self.cost = backbone, shift, FitCost(shift.numel())

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        edits = inversions.reconstruction[None].repeat(len(strengths), 1, 1, 1, 1)
        for place, strength in enumerate(strengths):
            if strength != 0:
                x_T = inversions.x_T + strength * self.shift
                edits[place] = ddim_generation(self.backbone, x_T, inversions.timesteps).cpu()
        return edits

    def state(self) -> dict[str, Tensor]:
        return {"shift": self.shift}


@register_method
class NoiseShift(ConfiguredMethod[MethodConfig]):
    info: ClassVar[MethodInfo] = MethodInfo(
        name="noise_shift", title="x_T by retrieval", source="a stranger", version=1,
        supervision="text", deterministic=True,
    )  # fmt: skip

    def fit(self, task: EditTask) -> NoiseShiftEditor:
        assert task.guide_clip is not None
        like, unlike = retrieve(task.guide_clip, task.train.x_0, task.concept, share=0.5)
        shift = task.train.x_T[like].mean(0) - task.train.x_T[unlike].mean(0)
        return NoiseShiftEditor(task.backbone, shift)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> NoiseShiftEditor:
        return NoiseShiftEditor(task.backbone, state["shift"])
