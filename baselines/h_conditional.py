"""A direction of h-space that leaves the other labelled attributes alone.

At each visited timestep every attribute has a unit direction in standardised features of h: the
normal of a linear SVM, or the difference of class means. From the concept's the part is taken that
lies in the span of all the others', so that to first order their linear probes say the same before
and after the edit. What is left is scaled to the distance of the class means along it.

Source: Shen et al., "Interpreting the latent space of GANs for semantic face editing", CVPR 2020
(InterFaceGAN), section 3.3, conditional manipulation; there in a GAN's latent space and against one
or two attributes, here in h and against all. The method is given the labels of all attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.label_directions import (
    Normal,
    StandardisedMaps,
    require_two_classes,
    unit,
)
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps


class HConditionalConfig(MethodConfig):
    """Settings of the fit and of the edit."""

    direction: Normal = "svm"  # of each attribute
    C: float = 1.0  # penalty of the SVM, see `StandardisedMaps.svm_normal`
    t_edit: int = 350  # inject at visited timesteps t >= t_edit
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    gain: float = 2.0  # factor on the distance of the class means at strength 1


def without_span(normal: Tensor, others: Tensor) -> Tensor:
    """A vector [D] without its part in the span of others [m, D], of length 1.

    Raises InputError where nothing is left.
    """
    basis, _ = torch.linalg.qr(others.T)
    rest = normal - basis @ (basis.T @ normal)
    if float(rest.norm()) <= 1e-6 * float(normal.norm()):
        raise InputError("the concept's direction is one of the other attributes'")
    return unit(rest)


@register_method
class HConditional(ConfiguredMethod[HConditionalConfig]):
    """Directions orthogonal to those of all other attributes."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="h_conditional",
        title="h-space, conditional on other attributes",
        source="InterFaceGAN, Shen et al., CVPR 2020, section 3.3, in h",
        version=1,
        supervision="labels",
        uses_all_labels=True,
        space="h_space",
        deterministic=True,
    )
    config_class = HConditionalConfig

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: the kind of direction, and how it is injected."""
        return {
            "direction": ("mean_difference", "svm"),
            "t_edit": (100, 250, 350, 500),
            "asymmetric": (False, True),
        }

    def fit(self, task: EditTask) -> DirectionEditor:
        """Read the directions off the stored trajectories; no U-Net call.

        Raises InputError if the task grants no labels, or the concept's are all alike. Another
        attribute whose labels are all alike has no direction and is passed over.
        """
        config, store = self.config, task.trajectories
        labels = require_two_classes(task.labels, task.concept.attribute)
        if task.all_labels is None:
            raise InputError("h_conditional needs the labels of all attributes in its task")
        others = [
            own
            for name, own in task.all_labels.items()
            if name != task.concept.attribute and bool(own.any()) and not bool(own.all())
        ]
        steps, values = visited_steps(store.timesteps, config.t_edit), []
        for step in steps:
            maps = StandardisedMaps.of(store.h(step))
            normal = maps.normal(config.direction, labels, config.C)
            if others:
                theirs = [maps.normal(config.direction, own, config.C) for own in others]
                normal = without_span(normal, torch.stack(theirs))
            values.append(maps.direction(normal, labels))
        directions = StepDirections([store.timesteps[s] for s in steps], torch.stack(values))
        return self._editor(task, directions)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DirectionEditor:
        """The editor from its stored directions."""
        return self._editor(task, StepDirections.from_tensors(state))

    def _editor(self, task: EditTask, directions: StepDirections) -> DirectionEditor:
        window = EditWindow(self.config.t_edit, asymmetric=self.config.asymmetric)
        return DirectionEditor(task.backbone, window, directions, self.config.gain)
