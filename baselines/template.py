"""Control: one picture for all, the mean change that the perfect edit makes to training renders.

It shows how far a metric is bought by the average look of a concept, put on every image without
looking at it: no diffusion model runs, and the change that is added was never learned.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.label_directions import require_two_classes
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.pixel_editor import AddedPicture


@register_method
class Template(ConfiguredMethod[MethodConfig]):
    """Adds the mean oracle difference of the training images that lack the attribute."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="template",
        title="mean oracle difference",
        source="control",
        version=1,
        supervision="labels",
        space="pixels",
        control=True,
        needs_oracle=True,
        matched=True,
        deterministic=True,
    )

    def fit(self, task: EditTask) -> AddedPicture:
        """Render the training images that lack the attribute with it; no U-Net call.

        Raises InputError where the task grants no renderer or no labels, or these are all alike.
        """
        if task.oracle is None:
            raise InputError("an image is rendered again only where its factors are known")
        labels = require_two_classes(task.labels, task.concept.attribute)
        without = (~labels).nonzero().flatten().tolist()
        train = task.train.take(without)
        change = task.oracle(train.image_ids, task.concept.attribute) - train.x_0
        return AddedPicture(change.double().mean(0).float())

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> AddedPicture:
        """The editor from its stored picture."""
        return AddedPicture(state["picture"])
