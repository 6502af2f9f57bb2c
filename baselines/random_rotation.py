"""Control: the delta_h of the method it stands beside, turned at random.

A random rotation of the channels: at every image, position and timestep the norm stays and only
the direction is random. One rotation is sampled per cell. `random_direction` is the null that EPR+
is divided by; this one asks what a method's own delta_h does beyond its size, time and place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.h_space_editor import HSpaceEditor
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)


class RandomRotationEditor(HSpaceEditor):
    """Injects another editor's delta_h after a rotation of the channels."""

    def __init__(self, partner: HSpaceEditor, rotation: Tensor) -> None:
        """Keep the partner and the rotation [C, C]."""
        super().__init__(partner.backbone, partner.window, partner.noise_seed, FitCost())
        self.partner, self.rotation = partner, rotation

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """The partner's delta_h, turned."""
        own = self.partner.unit_delta_h(h, t, temb)
        # One product an image: its numbers must not depend on the batch.
        return torch.stack([(self.rotation @ d.flatten(1)).view_as(d) for d in own])

    def state(self) -> dict[str, Tensor]:
        """The rotation."""
        return {"rotation": self.rotation}


def random_rotation(channels: int, generator: torch.Generator) -> Tensor:
    """A uniformly random orthogonal matrix [channels, channels] (QR of a Gaussian, sign-fixed)."""
    gaussian = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    rotation: Tensor = (q * r.diagonal().sign()).float().contiguous()
    return rotation


@register_method
class RandomRotation(ConfiguredMethod[MethodConfig]):
    """Norm-matched random directions."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_rotation",
        title="random rotation",
        source="control",
        version=1,
        control=True,
        space="h_space",
        beside=True,
    )

    config_class = MethodConfig

    def fit(self, task: EditTask) -> RandomRotationEditor:
        """Sample the rotation."""
        rotation = random_rotation(task.backbone.h_shape[0], task.generator)
        return RandomRotationEditor(_partner(task), rotation)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> RandomRotationEditor:
        """The editor from its stored rotation."""
        return RandomRotationEditor(_partner(task), state["rotation"])


def _partner(task: EditTask) -> HSpaceEditor:
    if not isinstance(task.beside, HSpaceEditor):
        raise InputError(
            "a random rotation is of a method that edits h-space", where=repr(task.beside)
        )
    return task.beside
