"""Linear directions of h-space from labels: mean difference, or the normal of a linear SVM.

Each visited timestep has a direction of its own, a whole map [C, h, w]: concepts are local, so the
positions of h are not pooled. It is added to h of every image alike.

Sources. "mean_difference": mean h of the training images with the attribute minus mean h of those
without (Kwon et al., "Diffusion models already have a semantic latent space", ICLR 2023, and Haas
et al., "Discovering interpretable directions in the semantic latent space of diffusion models",
2023, the supervised directions). "svm": the unit normal of a linear SVM's hyperplane between the
two classes (Zhu et al., "Boundary guided learning-free semantic control with diffusion models",
NeurIPS 2023, known as BoundaryDiffusion), scaled so that strength 1 and gain 1 move by the distance
of the class means along it.

Choices of ours. BoundaryDiffusion moves both x_t and h at one mixing step; only its h-space half
is here, at every visited timestep of the window as all other methods here, or with `single_step` at
one. Features are standardised before the SVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.label_directions import (
    mean_difference,
    require_two_classes,
    svm_direction,
)
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps


class HLinearConfig(MethodConfig):
    """Settings of the fit and of the edit."""

    # How the two classes give a direction, see the module
    direction: Literal["mean_difference", "svm"] = "mean_difference"
    # Penalty of the SVM, per image, for standardised features whose inner products are means over
    # features. A small one weighs all images alike, which is the mean difference.
    C: float = 1.0
    t_edit: int = 350  # inject at visited timesteps t >= t_edit
    single_step: bool = False  # inject at the visited timestep nearest t_edit alone
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    gain: float = 2.0  # factor on the distance of the class means at strength 1


@register_method
class HLinear(ConfiguredMethod[HLinearConfig]):
    """Directions of h-space from labels."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="h_linear",
        title="h-space linear",
        source="Haas et al. 2023 (mean difference); Zhu et al., NeurIPS 2023 (SVM)",
        version=1,
        supervision="labels",
        space="h_space",
        deterministic=True,
    )
    config_class = HLinearConfig

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: the kind of direction, and how it is injected."""
        return {
            "direction": ("mean_difference", "svm"),
            "t_edit": (100, 250, 350, 500),
            "asymmetric": (False, True),
        }

    def fit(self, task: EditTask) -> DirectionEditor:
        """Read the concept's directions off the stored trajectories; no U-Net call.

        Raises InputError if the task grants no labels, or they are all alike.
        """
        config, store = self.config, task.trajectories
        labels = require_two_classes(task.labels, task.concept.attribute)
        window = self._window(store.timesteps)
        steps = [s for s, t in enumerate(store.timesteps) if window.edits(t)]
        values = [
            mean_difference(store.h(s), labels)
            if config.direction == "mean_difference"
            else svm_direction(store.h(s), labels, config.C)
            for s in steps
        ]
        directions = StepDirections([store.timesteps[s] for s in steps], torch.stack(values))
        return DirectionEditor(task.backbone, window, directions, config.gain)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DirectionEditor:
        """The editor from its stored directions."""
        window = self._window(task.trajectories.timesteps)
        directions = StepDirections.from_tensors(state)
        return DirectionEditor(task.backbone, window, directions, self.config.gain)

    def _window(self, timesteps: tuple[int, ...]) -> EditWindow:
        config = self.config
        if config.single_step:
            nearest = min(timesteps, key=lambda t: abs(t - config.t_edit))
            return EditWindow(nearest, nearest + 1, asymmetric=config.asymmetric)
        visited_steps(timesteps, config.t_edit)
        return EditWindow(config.t_edit, asymmetric=config.asymmetric)
