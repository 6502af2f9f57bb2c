"""The reverse process that all editors share which change the U-Net's weights.

Above t_start the frozen U-Net generates, once for all strengths; from t_start down to t_end the
same U-Net with weights W_0 + strength · delta does, and below t_end, where there is such a rest,
the frozen one again. A strength of 0 is the reconstruction itself.

Choice: a strength scales the change of the weights. DiffusionCLIP's code mixes the eps of the two
networks instead, which costs two passes a step; the two agree to first order in the change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import ddim_walk, generation_steps
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.h_space_editor import checked_strengths
from casl_bench.methods.method import FitCost
from casl_bench.models.backbone import Backbone


class WeightEditor:
    """An `Editor` that adds to the U-Net's weights: subclasses give `weight_delta` and `state`.

    The changed weights act at timesteps t_end <= t <= t_start. The backbone stays as it is.
    """

    def __init__(self, backbone: Backbone, t_start: int, cost: FitCost, t_end: int = 0) -> None:
        self.backbone = backbone
        self.t_start = t_start
        self.t_end = t_end
        self.cost = cost

    def weight_delta(self) -> Mapping[str, Tensor]:
        """Name in the U-Net's state dict → what strength 1 adds to that tensor, same shape."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Everything fitted, as tensors."""
        raise NotImplementedError

    @torch.no_grad()
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """[S, n, 3, H, W]: every image at every strength; see `Editor.edit`.

        Raises InputError if a strength is not finite.
        """
        factors = checked_strengths(strengths)
        result = inversions.reconstruction[None].repeat(len(factors), 1, 1, 1, 1)
        if not len(inversions) or not bool(factors.any()):
            return result
        steps = list(generation_steps(inversions.timesteps))
        plain = [step for step in steps if step[0] > self.t_start]
        changed = [step for step in steps if self.t_end <= step[0] <= self.t_start]
        rest = [step for step in steps if step[0] < min(self.t_end, self.t_start + 1)]
        x_start = ddim_walk(self.backbone, inversions.x_T, plain)
        twin, delta = self.backbone.twin(), self.weight_delta()
        for place, factor in enumerate(factors.tolist()):
            if factor != 0:
                shift_weights(twin, self.backbone, delta, factor)
                x_end = ddim_walk(twin, x_start, changed)
                result[place] = ddim_walk(self.backbone, x_end, rest).cpu()
        return result


def nearest_step(timesteps: Sequence[int], t: int) -> int:
    """The place of the visited timestep nearest to t, the smaller one of two equally near."""
    return min(range(len(timesteps)), key=lambda step: abs(timesteps[step] - t))


@torch.no_grad()
def shift_weights(
    twin: Backbone, backbone: Backbone, delta: Mapping[str, Tensor], factor: float
) -> None:
    """Set the weights of a `backbone.twin()` to the backbone's plus factor · delta.

    Tensors without a delta are left as they are. Raises InputError if a delta's name or shape does
    not fit the U-Net.
    """
    own, frozen = twin.unet.state_dict(), backbone.unet.state_dict()
    for name, change in delta.items():
        if name not in own or own[name].shape != change.shape:
            raise InputError(
                f"the U-Net of '{backbone.name}' has no tensor {list(change.shape)} of this name",
                where=name,
            )
        torch.add(frozen[name], change.to(frozen[name]), alpha=factor, out=own[name])
