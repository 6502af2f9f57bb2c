"""A direction of h whose strength is an image's own: what a linear probe still misses in it.

At each visited timestep the probe is the normal w of a linear SVM in standardised features of h,
and an image moves along w by the distance that its projection lacks of the mean projection of the
training images with the attribute, or not at all where it lacks nothing. So strength is spent where
the concept is absent, and an image and a timestep that have it are left alone. Strength 1 brings
the projection there, at every timestep anew.

Source: adaptive steering by projection, as Gaintseva et al., "CASteer: steering diffusion models
for controllable generation", arXiv 2503.09630, scale a mean-difference vector by an activation's
product with it. There the product removes a concept; adding one by what is missing, and the SVM's
normal in the place of the mean difference, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.label_directions import Normal, StandardisedMaps, require_two_classes
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


class HAdaptiveConfig(MethodConfig):
    """Settings of the fit and of the edit."""

    direction: Normal = "svm"  # of the probe
    C: float = 1.0  # penalty of the SVM, see `StandardisedMaps.svm_normal`
    t_edit: int = 350  # inject at visited timesteps t >= t_edit
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    gain: float = 1.0  # factor on the missing distance at strength 1


@register_method
class HAdaptive(ConfiguredMethod[HAdaptiveConfig]):
    """A direction of h-space with a strength for each image and timestep."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="h_adaptive",
        title="h-space, adaptive strength",
        source="CASteer, arXiv 2503.09630, in h and by a probe",
        version=1,
        supervision="labels",
        space="h_space",
        bidirectional=False,
        deterministic=True,
    )
    config_class = HAdaptiveConfig

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: the kind of probe, and how the edit is injected."""
        return {
            "direction": ("mean_difference", "svm"),
            "t_edit": (100, 250, 350, 500),
            "asymmetric": (False, True),
        }

    def fit(self, task: EditTask) -> ProjectionEditor:
        """Read the probes off the stored trajectories; no U-Net call.

        Raises InputError if the task grants no labels, or they are all alike.
        """
        config, store = self.config, task.trajectories
        labels = require_two_classes(task.labels, task.concept.attribute)
        steps = visited_steps(store.timesteps, config.t_edit)
        rows = []
        for step in steps:
            maps = StandardisedMaps.of(store.h(step))
            normal = maps.normal(config.direction, labels, config.C)
            # ⟨normal, (h - mean) / std⟩ as a product with h itself, and a constant.
            reader = (normal / maps.std).float()
            direction = (normal * maps.std).float()
            goal = (maps.x[labels] @ normal).mean() + reader.double() @ maps.mean
            rows.append((reader.reshape(maps.shape), direction.reshape(maps.shape), goal))
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
            task.backbone, window, readers, directions, goals,
            one_sided=True, gain=self.config.gain,
        )  # fmt: skip
