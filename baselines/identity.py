"""Control: no edit at all. What any method would score that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import (
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    UnfittedMethod,
    register_method,
)


class IdentityEditor:
    """Returns the reconstruction."""

    cost = FitCost()

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """The reconstruction at every strength."""
        return inversions.reconstruction[None].repeat(len(strengths), 1, 1, 1, 1)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@register_method
class Identity(UnfittedMethod[MethodConfig]):
    """Inversion and reconstruction only."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="identity", title="no edit", source="control", version=1, control=True
    )
    config_class = MethodConfig

    def fit(self, task: EditTask) -> IdentityEditor:
        """Nothing to learn."""
        return IdentityEditor()
