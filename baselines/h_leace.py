"""An affine edit of h: the linearly readable concept is replaced by that of the class with it.

LEACE erases a concept by the smallest affine map after which no linear probe can read it. For two
classes with mean difference d and covariance S that is h - d (u·h - u·m), with u = S⁻¹ d / (d·S⁻¹
d): h moves along d as far as its projection on u is from the overall mean's. With the mean of the
class that has the attribute in the place of m it does not erase the concept but sets it:

    h + d (u·m_1 - u·h),

so an image that has the attribute already stays, on the average, where it is, and one that lacks it
moves by the whole difference. Strength 1 sets, a strength below 1 goes a part of the way.

Sources: Belrose et al., "LEACE: perfect linear concept erasure in closed form", NeurIPS 2023,
theorem 4.3; Singh et al., "Representation surgery: theory and practice of affine steering", ICML
2024, for the mean as goal. Choice of ours: h has far more numbers than there are images, so S is
shrunk towards a multiple of the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.label_directions import require_two_classes
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import (
    ProjectionEditor,
    StepDirections,
    stack_projections,
    visited_steps,
)


class HLeaceConfig(MethodConfig):
    """Settings of the fit and of the edit."""

    # Share of a multiple of the identity, with the same trace, in the covariance
    shrinkage: float = Field(0.1, gt=0, le=1)
    t_edit: int = 350  # inject at visited timesteps t >= t_edit
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    gain: float = 1.0  # factor at strength 1; 1 sets the concept exactly


def leace_reader(x: Tensor, difference: Tensor, shrinkage: float) -> Tensor:
    """The reader S⁻¹ d / (d·S⁻¹ d) [D], of x [n, D] float64 and d [D].

    S is the shrunk covariance of x. Solved with n x n matrices (Woodbury), as n is far below D.
    """
    n, features = x.shape
    centred = x - x.mean(0)
    ridge = shrinkage * centred.pow(2).sum() / (n * features)
    if not float(ridge) > 0:
        return difference / difference.dot(difference)
    share = (1 - shrinkage) / n
    inner = torch.eye(n, dtype=x.dtype) * ridge + share * (centred @ centred.T)
    solved = torch.linalg.solve(inner, centred @ difference)
    inverse = (difference - share * (centred.T @ solved)) / ridge
    reader: Tensor = inverse / difference.dot(inverse)
    return reader


@register_method
class HLeace(ConfiguredMethod[HLeaceConfig]):
    """Sets the linearly readable concept, by the map that LEACE erases it with."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="h_leace",
        title="h-space LEACE",
        source="Belrose et al., NeurIPS 2023, theorem 4.3; Singh et al., ICML 2024",
        version=1,
        supervision="labels",
        space="h_space",
        deterministic=True,
    )
    config_class = HLeaceConfig

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: the covariance, and how the edit is injected."""
        return {
            "shrinkage": (0.01, 0.1, 0.5),
            "t_edit": (100, 250, 350, 500),
            "asymmetric": (False, True),
        }

    def fit(self, task: EditTask) -> ProjectionEditor:
        """Read means and covariance off the stored trajectories; no U-Net call.

        Raises InputError if the task grants no labels, or they are all alike.
        """
        store = task.trajectories
        labels = require_two_classes(task.labels, task.concept.attribute)
        steps = visited_steps(store.timesteps, self.config.t_edit)
        rows = []
        for step in steps:
            h = store.h(step)
            x = h.flatten(1).double()
            there = x[labels].mean(0)
            difference = there - x[~labels].mean(0)
            reader = leace_reader(x, difference, self.config.shrinkage).float()
            shape, goal = h.shape[1:], reader.double() @ there
            rows.append((reader.reshape(shape), difference.float().reshape(shape), goal))
        timesteps = [store.timesteps[s] for s in steps]
        return self._editor(task, *stack_projections(timesteps, rows))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> ProjectionEditor:
        """The editor from its stored readers, directions and goals."""
        return self._editor(task, *ProjectionEditor.tensors_of(state))

    def _editor(
        self, task: EditTask, readers: StepDirections, directions: StepDirections, goals: Tensor
    ) -> ProjectionEditor:
        window = EditWindow(self.config.t_edit, asymmetric=self.config.asymmetric)
        return ProjectionEditor(
            task.backbone, window, readers, directions, goals, gain=self.config.gain
        )
