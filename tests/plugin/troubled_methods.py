"""Methods that end their process, hang, or give NaN, for tests of what becomes of the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import EditTask, FitCost, MethodConfig, MethodInfo, register_method


class TroubledEditor:
    def __init__(self, method: str) -> None:
        self.cost, self._method = FitCost(), method

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        if self._method == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._method == "hangs":
            time.sleep(3600)
        return torch.full((len(strengths), *inversions.x_0.shape), torch.nan)

    def state(self) -> dict[str, Tensor]:
        return {}


class Troubled:
    info: ClassVar[MethodInfo]

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> TroubledEditor:
        return TroubledEditor(self.info.name)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> TroubledEditor:
        return TroubledEditor(self.info.name)


@register_method
class Dies(Troubled):
    info: ClassVar[MethodInfo] = MethodInfo(name="dies", title="dies", source="test", version=1)


@register_method
class Hangs(Troubled):
    info: ClassVar[MethodInfo] = MethodInfo(name="hangs", title="hangs", source="test", version=1)


@register_method
class GivesNan(Troubled):
    info: ClassVar[MethodInfo] = MethodInfo(name="gives_nan", title="NaN", source="test", version=1)
