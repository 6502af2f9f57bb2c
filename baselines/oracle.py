"""Control: the perfect edit, known only where the image's factors are.

The image is drawn again with the one factor flipped; the change of pixels is added to the
reconstruction, so that the oracle has the same baseline as every method and strength 1 is exactly
the known edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.inversion.inversions import Inversions
from casl_bench.methods.method import (
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    OracleRenderer,
    register_method,
)


class OracleEditor:
    """Adds strength times the known change of pixels."""

    cost = FitCost()

    def __init__(self, render: OracleRenderer, attribute: str) -> None:
        """Keep the renderer and the attribute to flip."""
        self._render, self._attribute = render, attribute

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """[S, n, 3, H, W]: reconstruction + strength · (flipped render - image)."""
        change = self._render(inversions.image_ids, self._attribute) - inversions.x_0
        edits = [
            inversions.reconstruction if s == 0 else inversions.reconstruction + s * change
            for s in strengths
        ]
        return torch.stack(edits)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@register_method
class Oracle:
    """Re-render with the factor flipped."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="oracle",
        title="oracle (re-rendered)",
        source="control",
        version=1,
        control=True,
        needs_oracle=True,
        bidirectional=False,
    )

    def __init__(self, config: MethodConfig | None = None) -> None:
        """No settings."""
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> OracleEditor:
        """Nothing to learn.

        Raises:
            InputError: where the task grants no renderer.
        """
        if task.oracle is None:
            raise InputError("the oracle needs a data set whose factors are known")
        return OracleEditor(task.oracle, task.concept.attribute)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> OracleEditor:
        """Nothing to restore."""
        return self.fit(task)
