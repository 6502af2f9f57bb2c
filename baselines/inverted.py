"""Control: the perfect edit the wrong way.

It is given images that have the attribute, and removes it where the concept asks to turn it on.
What is blind to direction cannot tell it from the oracle; a signed number must be negative.
"""

from __future__ import annotations

from typing import ClassVar

from casl_bench.methods.method import (
    EditTask,
    MethodConfig,
    MethodInfo,
    UnfittedMethod,
    register_method,
)
from casl_bench.methods.pixel_editor import RerenderEditor


@register_method
class Inverted(UnfittedMethod[MethodConfig]):
    """Re-render images that have the attribute without it."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="inverted",
        title="oracle, the wrong way",
        source="control",
        version=1,
        control=True,
        needs_oracle=True,
        on_present=True,
        bidirectional=False,
    )

    config_class = MethodConfig

    def fit(self, task: EditTask) -> RerenderEditor:
        """Nothing to learn.

        Raises:
            InputError: where the task grants no renderer.
        """
        return RerenderEditor.of(task, task.concept.attribute)
