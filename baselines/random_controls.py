"""Controls at random: a direction of h-space, and a method's change turned or replaced by noise.

`random_direction` is the null of the headline. At each visited timestep it adds
sum_i g_i (h_i - mean h) / sqrt(n) over the n training images, with one sample of g ~ N(0, I_n) for
all timesteps: a sample of N(0, C), C the covariance of h over the images. Strength 1 is thus one
random deviation as large as those from image to image. Not a Gaussian of unit covariance: h has far
more numbers than directions in which it varies, so that such noise goes where no image ever is and
hardly moves the picture (at equal norm a third as far or less, in the rendered domains); to beat it
would say little.

The other two stand beside a method and ask what its own change does beyond its size, time and
place. `random_rotation` turns its delta_h by one random rotation of the channels: at every image,
position and timestep the norm stays. `random_weights` replaces each tensor of its change of the
weights by Gaussian noise of the same norm, at the same timesteps and strengths: matched in weights,
not in pixels, as how far the image moves is part of what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    control_info,
    register_method,
)
from casl_bench.methods.step_directions import DirectionEditor, StepDirections, visited_steps
from casl_bench.methods.weight_editor import WeightEditor


class RandomDirectionConfig(MethodConfig):
    """Settings of the edit."""

    t_edit: int = 350  # inject at visited timesteps t >= t_edit


def random_deviation(h: Tensor, draw: Tensor) -> Tensor:
    """sum_i g_i (h_i - mean h) / sqrt(n) of h [n, C, h, w] and g [n]: [C, h, w] float32.

    A sample of N(0, covariance of h over the images); sums in float64.
    """
    # Centring g does what centring h would.
    centred = (draw.double() - draw.double().mean()) / math.sqrt(len(draw))
    deviation: Tensor = torch.tensordot(centred, h.double(), dims=1)
    return deviation.float()


@register_method
class RandomDirection(ConfiguredMethod[RandomDirectionConfig]):
    """Random directions with the covariance of h."""

    info: ClassVar[MethodInfo] = control_info(
        "random_direction",
        "random direction",
        version=2,  # 1 was what is `random_rotation` now
        space="h_space",
        matched=True,
        draws=True,
    )
    config_class = RandomDirectionConfig

    def fit(self, task: EditTask) -> DirectionEditor:
        """Sample g and read the directions off the stored trajectories; no U-Net call.

        Raises InputError if no visited timestep is edited.
        """
        store = task.trajectories
        draw = torch.randn(len(store), generator=task.generator)
        steps = visited_steps(store.timesteps, self.config.t_edit)
        values = torch.stack([random_deviation(store.h(step), draw) for step in steps])
        directions = StepDirections([store.timesteps[step] for step in steps], values)
        return self._editor(task, directions)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> DirectionEditor:
        """The editor from its stored directions."""
        return self._editor(task, StepDirections.from_tensors(state))

    def _editor(self, task: EditTask, directions: StepDirections) -> DirectionEditor:
        window = EditWindow(self.config.t_edit)
        return DirectionEditor(task.backbone, window, directions, cost=FitCost())


def random_rotation(channels: int, generator: torch.Generator) -> Tensor:
    """A uniformly random orthogonal matrix [channels, channels] (QR of a Gaussian, sign-fixed)."""
    gaussian = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    rotation: Tensor = (q * r.diagonal().sign()).float().contiguous()
    return rotation


class RandomRotationEditor(HSpaceEditor):
    """Injects another editor's delta_h after a rotation [C, C] of the channels."""

    def __init__(self, partner: HSpaceEditor, rotation: Tensor) -> None:
        super().__init__(partner.backbone, partner.window, partner.noise_seed, FitCost())
        self.partner, self.rotation = partner, rotation.to(partner.backbone.device)

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """The partner's delta_h, turned."""
        own = self.partner.unit_delta_h(h, t, temb)
        # One product an image: its numbers must not depend on the batch.
        return torch.stack([(self.rotation @ d.flatten(1)).view_as(d) for d in own])

    def state(self) -> dict[str, Tensor]:
        """The rotation."""
        return {"rotation": self.rotation}


@register_method
class RandomRotation(ConfiguredMethod[MethodConfig]):
    """Norm-matched random directions."""

    info: ClassVar[MethodInfo] = control_info(
        "random_rotation", "random rotation", space="h_space", beside=True
    )

    def fit(self, task: EditTask) -> RandomRotationEditor:
        """Sample the rotation.

        Raises InputError where the method that it stands beside does not edit h-space.
        """
        rotation = random_rotation(task.backbone.h_shape[0], task.generator)
        return self.restore(task, {"rotation": rotation})

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> RandomRotationEditor:
        """The editor from its stored rotation."""
        if not isinstance(task.beside, HSpaceEditor):
            raise InputError(
                "a random rotation is of a method that edits h-space", where=repr(task.beside)
            )
        return RandomRotationEditor(task.beside, state["rotation"])


class RandomWeightsEditor(WeightEditor):
    """Adds noise, from a seed, in the place of another editor's change of the weights."""

    def __init__(self, partner: WeightEditor, seed: int) -> None:
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
    """Gaussian tensors with the names, shapes, places and L2 norms of `delta`, float32."""
    noise = {}
    # The order of a mapping that was stored and read again may be another one.
    for name in sorted(delta):
        norm = delta[name].double().norm().cpu()
        gaussian = torch.randn(delta[name].shape, generator=generator, dtype=torch.float64)
        noise[name] = (gaussian * (norm / gaussian.norm())).float().to(delta[name].device)
    return noise


@register_method
class RandomWeights(ConfiguredMethod[MethodConfig]):
    """Norm-matched random changes of the weights."""

    info: ClassVar[MethodInfo] = control_info(
        "random_weights", "random weights", space="weights", beside=True
    )

    def fit(self, task: EditTask) -> RandomWeightsEditor:
        """Sample the noise's seed. Raises InputError where the method changes no weights."""
        return self.restore(task, {"seed": torch.randint(2**62, (1,), generator=task.generator)})

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> RandomWeightsEditor:
        """The editor from its stored seed."""
        if not isinstance(task.beside, WeightEditor):
            raise InputError(
                "random weights are matched to a method that changes the U-Net's weights",
                where=repr(task.beside),
            )
        return RandomWeightsEditor(task.beside, int(state["seed"]))
