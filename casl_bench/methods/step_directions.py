"""One direction of h per visited timestep: what methods add that read h and train nothing.

It is added to every image alike (`DirectionEditor`), or as far as an image's own h is from where it
should be (`ProjectionEditor`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import FitCost
from casl_bench.models.backbone import Backbone


class StepDirections:
    """Directions of h-space [S, C, h, w], in the units of h, one for each of S timesteps."""

    def __init__(self, timesteps: Sequence[int], values: Tensor) -> None:
        """Raises InputError if there is not one direction a timestep."""
        self.timesteps = tuple(int(t) for t in timesteps)
        if len(values) != len(self.timesteps):
            raise InputError(f"{len(values)} directions for {len(self.timesteps)} timesteps")
        self.values = values
        self._place = {t: i for i, t in enumerate(self.timesteps)}

    def to(self, device: torch.device | str) -> StepDirections:
        """The same directions on a device."""
        return StepDirections(self.timesteps, self.values.to(device))

    def at(self, t: int, h: Tensor) -> Tensor:
        """The direction at timestep t for each of the maps h [n, C, h, w]; same shape and place.

        Raises InputError on a timestep without a direction.
        """
        if t not in self._place:
            raise InputError(
                f"there is no direction at timestep {t}",
                hint=f"edit at the timesteps of the fit: {self.timesteps}",
            )
        return self.values[self._place[t]].expand_as(h)

    def tensors(self) -> dict[str, Tensor]:
        """What was fitted, for storing."""
        return {"directions": self.values, "timesteps": torch.tensor(self.timesteps)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> StepDirections:
        """The directions that `tensors` came from."""
        return cls(tensors["timesteps"].tolist(), tensors["directions"])


def visited_steps(timesteps: Sequence[int], t_edit: int) -> list[int]:
    """Places of the visited timesteps t >= t_edit. Raises InputError if there is none."""
    steps = [s for s, t in enumerate(timesteps) if t >= t_edit]
    if not steps:
        raise InputError(f"no visited timestep is at or above t_edit = {t_edit}")
    return steps


class DirectionEditor(HSpaceEditor):
    """Adds the timestep's direction, times a gain, to h; nothing outside the window."""

    def __init__(
        self,
        backbone: Backbone,
        window: EditWindow,
        directions: StepDirections,
        gain: float = 1.0,
        cost: FitCost | None = None,
    ) -> None:
        """Keep the directions; the cost is their number of parameters where none is given."""
        cost = cost or FitCost(directions.values.numel())
        super().__init__(backbone, window, noise_seed=0, cost=cost)
        self.gain, self.directions = gain, directions.to(backbone.device)

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """The direction times the gain."""
        if not self.window.edits(t):
            return torch.zeros_like(h)
        return self.gain * self.directions.at(t, h)

    def state(self) -> dict[str, Tensor]:
        """The directions and their timesteps."""
        return self.directions.tensors()


Projections = tuple[StepDirections, StepDirections, Tensor]
"""Readers, directions and goals [S] of the same S timesteps."""


def stack_projections(
    timesteps: Sequence[int], rows: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> Projections:
    """One (reader [C, h, w], direction, likewise, goal []) a timestep, stacked."""
    readers, directions, goals = (torch.stack(parts) for parts in zip(*rows, strict=True))
    return StepDirections(timesteps, readers), StepDirections(timesteps, directions), goals


class ProjectionEditor(HSpaceEditor):
    """Moves h along a direction until its projection on a reader is where it should be.

    delta_h = gain · (goal - ⟨reader, h⟩) · direction at each timestep. With ⟨reader, direction⟩ = 1
    and gain 1, strength 1 brings the projection to the goal. One-sided, what is beyond it stays.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: EditWindow,
        readers: StepDirections,
        directions: StepDirections,
        goals: Tensor,
        *,
        one_sided: bool = False,
        gain: float = 1.0,
    ) -> None:
        """Keep readers and directions of the same S timesteps, and their goals [S]."""
        cost = FitCost(readers.values.numel() + directions.values.numel() + goals.numel())
        super().__init__(backbone, window, noise_seed=0, cost=cost)
        where = backbone.device
        self.readers, self.directions = readers.to(where), directions.to(where)
        self.goals = goals.double().to(where)
        self.one_sided, self.gain = one_sided, gain

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """As far as each image has to go."""
        if not self.window.edits(t):
            return torch.zeros_like(h)
        goal = self.goals[self.readers.timesteps.index(t)]
        reader = self.readers.at(t, h)[0].flatten().double()
        # One product an image: its numbers must not depend on the batch.
        far = torch.stack([goal - reader @ own.flatten().double() for own in h])
        if self.one_sided:
            far = far.clamp_min(0)
        return self.gain * far.to(h)[:, None, None, None] * self.directions.at(t, h)

    def state(self) -> dict[str, Tensor]:
        """Readers, directions and goals, with their timesteps."""
        return {
            **self.directions.tensors(),
            "readers": self.readers.values,
            "goals": self.goals,
        }

    @staticmethod
    def tensors_of(state: Mapping[str, Tensor]) -> Projections:
        """Readers, directions and goals of a `state`."""
        directions = StepDirections.from_tensors(state)
        return StepDirections(directions.timesteps, state["readers"]), directions, state["goals"]
