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
one. Features are standardised before the SVM, which is solved in its dual, exactly and without
random numbers: n images have n coefficients, however many numbers h has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.h_space_editor import EditWindow
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps
from casl_bench.metrics.edit_scores import ROUNDING


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


def mean_difference(h: Tensor, labels: Tensor) -> Tensor:
    """Mean map of h [n, C, h, w] with the attribute minus mean of those without: [C, h, w] float32.

    Of labels [n] bool both classes must be present. Sums in float64.
    """
    h = h.double()
    return (h[labels].mean(0) - h[~labels].mean(0)).float()


def svm_direction(h: Tensor, labels: Tensor, C: float) -> Tensor:
    """Normal [C, h, w] float32 of a linear SVM, as long as the distance of the class means on it.

    Towards the images with the attribute, of h [n, C, h, w] and labels [n] bool, both classes
    present. Normal and distance are taken in standardised features; the result is turned back into
    the units of h. C: see `HLinearConfig`.
    """
    # Imported here: scikit-learn takes a second that other methods should not pay.
    from sklearn.svm import SVC

    x = h.flatten(1).double()
    std = x.std(0)
    std = torch.where(std > ROUNDING * x.abs().amax(0), std, 1.0)
    x = (x - x.mean(0)) / std
    machine = SVC(kernel="precomputed", C=C, tol=1e-6)
    machine.fit((x @ x.T / x.shape[1]).numpy(), labels.numpy())
    weights = torch.zeros(len(x), dtype=torch.float64)
    weights[torch.from_numpy(machine.support_).long()] = torch.from_numpy(machine.dual_coef_[0])
    normal = weights @ x
    normal = normal / normal.norm()
    distance = (x[labels].mean(0) - x[~labels].mean(0)) @ normal
    direction: Tensor = (distance * normal * std).reshape(h.shape[1:]).float()
    return direction


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
    )
    config_class = HLinearConfig

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: the kind of direction, and how it is injected."""
        return {
            "direction": ("mean_difference", "svm"),
            "t_edit": (250, 350, 500),
            "asymmetric": (False, True),
            "gain": (1.0, 2.0, 4.0),
        }

    def fit(self, task: EditTask) -> DirectionEditor:
        """Read the concept's directions off the stored trajectories; no U-Net call.

        Raises InputError if the task grants no labels, or they are all alike.
        """
        config, store, labels = self.config, task.trajectories, task.labels
        if labels is None:
            raise InputError("h_linear needs labels in its task")
        if bool(labels.all()) or not bool(labels.any()):
            raise InputError(
                "the training images are all of one class",
                where=f"attribute '{task.concept.attribute}'",
                hint="use more training images",
            )
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
