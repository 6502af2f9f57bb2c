"""The mean difference of x_T: labels and a diffusion model, and nothing of h.

The mean noise of the inverted training images with the attribute minus that of those without it is
added to an image's x_T, from which the unchanged U-Net then generates. What edits h or weights must
do better than this, or the way through the model's inside has not helped.

Source: the difference of class means, on the latent that Song et al. 2021 (DDIM) interpolate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.h_space_editor import checked_strengths
from casl_bench.methods.label_directions import mean_difference, require_two_classes
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.models.backbone import Backbone


class NoiseShiftEditor:
    """Generates from x_T + strength · shift [3, H, W]."""

    def __init__(self, backbone: Backbone, shift: Tensor) -> None:
        self.backbone, self.shift = backbone, shift
        self.cost = FitCost(shift.numel())

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """[S, n, 3, H, W]: every image at every strength; see `Editor.edit`.

        Raises InputError if a strength is not finite.
        """
        factors = checked_strengths(strengths)
        result = inversions.reconstruction[None].repeat(len(factors), 1, 1, 1, 1)
        there = factors.nonzero().flatten()
        if len(inversions) and len(there):
            x_T = inversions.x_T + factors[there, None, None, None, None] * self.shift
            flat = ddim_generation(self.backbone, x_T.flatten(0, 1), inversions.timesteps)
            result[there] = flat.cpu().unflatten(0, (len(there), len(inversions)))
        return result

    def state(self) -> dict[str, Tensor]:
        """The shift."""
        return {"shift": self.shift}


@register_method
class NoiseMeanDifference(ConfiguredMethod[MethodConfig]):
    """Adds the mean difference of x_T."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="x_T_mean_difference",
        title="mean difference of x_T",
        source="difference of class means, no h",
        version=1,
        supervision="labels",
        deterministic=True,
        reference=True,
    )

    def fit(self, task: EditTask) -> NoiseShiftEditor:
        """Raises InputError if the task grants no labels, or they are all alike."""
        labels = require_two_classes(task.labels, task.concept.attribute)
        shift = mean_difference(task.train.x_T, labels)
        return NoiseShiftEditor(task.backbone, shift)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> NoiseShiftEditor:
        """The editor from its stored shift."""
        return NoiseShiftEditor(task.backbone, state["shift"])
