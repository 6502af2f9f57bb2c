"""Control: random changes of the U-Net's weights, as large as those of the method it stands beside.

Each tensor that the method changes is changed by Gaussian noise of the same norm instead, at the
same timesteps and strengths. One draw a cell. Matched in weights, not in pixels: how far the image
moves is part of what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.weight_editor import WeightEditor

MAX_SEED = 2**62


class RandomWeightsEditor(WeightEditor):
    """Adds noise in the place of another editor's change of the weights."""

    def __init__(self, partner: WeightEditor, seed: int) -> None:
        """Draw the noise from a seed."""
        super().__init__(partner.backbone, partner.t_start, FitCost())
        self._seed = seed
        self._delta = random_like(partner.weight_delta(), torch.Generator().manual_seed(seed))

    def weight_delta(self) -> Mapping[str, Tensor]:
        """The noise."""
        return self._delta

    def state(self) -> dict[str, Tensor]:
        """The seed: the noise is as large as the U-Net."""
        return {"seed": torch.tensor(self._seed)}


def random_like(delta: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Gaussian tensors with the names, shapes and L2 norms of `delta`, float32, on the CPU."""
    noise = {}
    # The order of a mapping that was stored and read again may be another one.
    for name in sorted(delta):
        norm = delta[name].double().norm().cpu()
        gaussian = torch.randn(delta[name].shape, generator=generator, dtype=torch.float64)
        noise[name] = (gaussian * (norm / gaussian.norm())).float()
    return noise


@register_method
class RandomWeights(ConfiguredMethod[MethodConfig]):
    """Norm-matched random changes of the weights."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_weights",
        title="random weights",
        source="control",
        version=1,
        control=True,
        space="weights",
        beside=True,
    )

    config_class = MethodConfig

    def fit(self, task: EditTask) -> RandomWeightsEditor:
        """Sample the noise."""
        seed = int(torch.randint(MAX_SEED, (1,), generator=task.generator))
        return RandomWeightsEditor(_partner(task), seed)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> RandomWeightsEditor:
        """The editor from its stored seed."""
        return RandomWeightsEditor(_partner(task), int(state["seed"]))


def _partner(task: EditTask) -> WeightEditor:
    if not isinstance(task.beside, WeightEditor):
        raise InputError(
            "random weights are matched to a method that changes the U-Net's weights",
            where=repr(task.beside),
        )
    return task.beside
