"""Control: a random direction of h-space, drawn as h itself varies. The null of the headline.

At each visited timestep the direction is sum_i g_i (h_i - mean h) / sqrt(n) over the n training
images, with one draw of g ~ N(0, I_n) for all timesteps: a sample of N(0, C), C the covariance of
h over the images. Strength 1 is thus one random deviation as large as those from image to image.

Why not a Gaussian of unit covariance: h has far more numbers than directions in which it varies.
Such a draw spends its norm where no image ever goes and hardly moves the picture (at the norm of
strength 1 a third as far or less, in the rendered domains), so that to beat it would say little.
What this one moves is what real variation moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps


class RandomDirectionConfig(MethodConfig):
    """Settings of the edit.

    Attributes:
        t_edit: inject at visited timesteps t >= t_edit.
    """

    t_edit: int = 350


def random_deviation(h: Tensor, draw: Tensor) -> Tensor:
    """sum_i g_i (h_i - mean h) / sqrt(n): a sample of N(0, covariance of h over the images).

    Args:
        h: [n, C, h, w].
        draw: [n] standard normal numbers g.

    Returns:
        [C, h, w] float32; sums in float64.
    """
    # Centring g does what centring h would.
    centred = (draw.double() - draw.double().mean()) / math.sqrt(len(draw))
    deviation: Tensor = torch.tensordot(centred, h.double(), dims=1)
    return deviation.float()


@register_method
class RandomDirection(ConfiguredMethod[RandomDirectionConfig]):
    """Random directions with the covariance of h."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_direction",
        title="random direction",
        source="control",
        version=2,  # 1 was what is `random_rotation` now
        space="h_space",
        control=True,
        matched=True,
        draws=True,
    )
    config_class = RandomDirectionConfig

    def fit(self, task: EditTask) -> DirectionEditor:
        """Sample g and read the directions off the stored trajectories; no U-Net call.

        Raises:
            InputError: if no visited timestep is edited.
        """
        store = task.trajectories
        draw = torch.randn(len(store), generator=task.generator)
        steps = visited_steps(store.timesteps, self.config.t_edit)
        values = torch.stack([random_deviation(store.h(step), draw) for step in steps])
        directions = StepDirections([store.timesteps[step] for step in steps], values)
        return self._editor(task, directions)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DirectionEditor:
        """The editor from its stored directions."""
        return self._editor(task, StepDirections.from_tensors(state))

    def _editor(self, task: EditTask, directions: StepDirections) -> DirectionEditor:
        window = EditWindow(self.config.t_edit)
        return DirectionEditor(task.backbone, window, directions, cost=FitCost())
