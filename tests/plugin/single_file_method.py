"""A method in one file, given with `--plugin`: it darkens the reconstruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import EditTask, FitCost, MethodConfig, MethodInfo, register_method


class DarkenEditor:
    def __init__(self, amount: Tensor) -> None:
        self.cost = FitCost(parameters=1)
        self._amount = amount

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return torch.stack([inversions.reconstruction - s * self._amount for s in strengths])

    def state(self) -> dict[str, Tensor]:
        return {"amount": self._amount}


@register_method
class Darken:
    """Takes a shade from every pixel."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="darken", title="darken", source="an example", version=1
    )

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> DarkenEditor:
        return DarkenEditor(task.train.x_0.std().reshape(1))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DarkenEditor:
        return DarkenEditor(state["amount"])
