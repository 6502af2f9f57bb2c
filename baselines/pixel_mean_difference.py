"""The mean difference of training pixels: labels, and no model at all.

The mean training image with the attribute minus the mean one without it, added to an image. What
edits with a diffusion model must do better than this, or the model has not helped.

Source: the difference of class means, as old as Fisher 1936.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from casl_bench.methods.label_directions import mean_difference, require_two_classes
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.pixel_editor import AddedPicture


@register_method
class PixelMeanDifference(ConfiguredMethod[MethodConfig]):
    """Adds the mean difference of the pixels."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="pixel_mean_difference",
        title="mean difference of pixels",
        source="difference of class means, no model",
        version=1,
        supervision="labels",
        space="pixels",
        deterministic=True,
        reference=True,
    )

    def fit(self, task: EditTask) -> AddedPicture:
        """Raises InputError if the task grants no labels, or they are all alike."""
        labels = require_two_classes(task.labels, task.concept.attribute)
        return AddedPicture(mean_difference(task.train.x_0, labels))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> AddedPicture:
        """The editor from its stored picture."""
        return AddedPicture(state["picture"])
