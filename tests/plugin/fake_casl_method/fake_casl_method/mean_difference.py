"""The mean h of images with the attribute minus the mean h of those without, at each timestep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import EditTask, FitCost, MethodConfig, MethodInfo


class MeanDifferenceConfig(MethodConfig):
    """Settings.

    Attributes:
        t_edit: edit at timesteps t >= t_edit.
    """

    t_edit: int = 400


class MeanDifferenceEditor(HSpaceEditor):
    """Adds one direction a timestep."""

    def __init__(self, task: EditTask, t_edit: int, directions: Tensor, cost: FitCost) -> None:
        super().__init__(task.backbone, EditWindow(t_edit), noise_seed=0, cost=cost)
        self._directions = directions
        self._place = {t: i for i, t in enumerate(task.train.timesteps)}

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        return self._directions[self._place[t]].expand_as(h)

    def state(self) -> dict[str, Tensor]:
        return {"directions": self._directions}


class MeanDifference:
    """A linear direction from labels."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mean_difference",
        title="mean difference",
        source="difference of class means; folklore",
        version=1,
        supervision="labels",
        space="h_space",
    )

    def __init__(self, config: MeanDifferenceConfig | None = None, **settings: object) -> None:
        self.config = config or MeanDifferenceConfig.model_validate(settings)

    def fit(self, task: EditTask) -> MeanDifferenceEditor:
        labels = task.labels
        if labels is None or not 0 < int(labels.sum()) < len(labels):
            raise ValueError("images with the attribute and without it are needed")
        maps = (task.trajectories.h(step) for step in range(len(task.trajectories.timesteps)))
        directions = torch.stack([h[labels].mean(0) - h[~labels].mean(0) for h in maps])
        cost = FitCost(parameters=directions.numel())
        return MeanDifferenceEditor(task, self.config.t_edit, directions, cost)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> MeanDifferenceEditor:
        return MeanDifferenceEditor(task, self.config.t_edit, state["directions"], FitCost())
