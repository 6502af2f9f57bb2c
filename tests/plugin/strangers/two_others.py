"""Needs two other attributes' labels: the mean difference of h, balanced over their classes."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps


class TwoOthersConfig(MethodConfig):
    t_edit: int = 300


@register_method
class TwoOthers(ConfiguredMethod[TwoOthersConfig]):
    info: ClassVar[MethodInfo] = MethodInfo(
        name="two_others", title="mean difference, two others held", source="a stranger",
        version=1, supervision="labels", uses_all_labels=True, space="h_space", deterministic=True,
    )  # fmt: skip
    config_class = TwoOthersConfig

    def fit(self, task: EditTask) -> DirectionEditor:
        assert task.labels is not None and task.all_labels is not None
        others = [a for a in task.all_labels if a != task.concept.attribute][:2]
        # An image counts the less, the more there are of its label and of the others'.
        kind = task.labels + sum(2 * 2**i * task.all_labels[a].long() for i, a in enumerate(others))
        weights = 1 / torch.bincount(kind)[kind]
        store = task.trajectories
        steps = visited_steps(store.timesteps, self.config.t_edit)
        there, not_there = weights * task.labels, weights * ~task.labels
        values = [self._mean(store.h(s), there) - self._mean(store.h(s), not_there) for s in steps]
        directions = StepDirections([store.timesteps[s] for s in steps], torch.stack(values))
        return self._editor(task, directions)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DirectionEditor:
        return self._editor(task, StepDirections.from_tensors(state))

    def _editor(self, task: EditTask, directions: StepDirections) -> DirectionEditor:
        return DirectionEditor(task.backbone, EditWindow(self.config.t_edit), directions)

    def _mean(self, h: Tensor, weights: Tensor) -> Tensor:
        return torch.tensordot(weights / weights.sum(), h, dims=1)
