"""The noise schedule and the timesteps visited, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from casl_bench.core.errors import InputError


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha_bar of a variance-preserving diffusion."""

    betas: Tensor  # [T] float64, in (0, 1)

    @classmethod
    def linear(
        cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> NoiseSchedule:
        """The linear schedule of DDPM (Ho et al. 2020, section 4)."""
        return cls(torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64))

    @classmethod
    def scaled_linear(
        cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> NoiseSchedule:
        """Linear in the root of beta (Rombach et al. 2022, code)."""
        ends = beta_start**0.5, beta_end**0.5
        return cls(torch.linspace(*ends, num_timesteps, dtype=torch.float64) ** 2)

    @classmethod
    def cosine(cls, num_timesteps: int = 1000) -> NoiseSchedule:
        """alpha_bar as a squared cosine, beta at most 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
        share = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((share + 0.008) / 1.008 * torch.pi / 2) ** 2
        return cls((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.betas)

    def alpha_bar(self, t: int) -> float:
        """Product of 1 - beta over timesteps up to t, t included; 1 at t = -1, the clean image.

        Raises InputError if t is not in [-1, T).
        """
        if not -1 <= t < self.num_timesteps:
            raise InputError(f"timestep {t} is outside [-1, {self.num_timesteps})")
        return 1.0 if t < 0 else float(torch.cumprod(1 - self.betas, 0)[t])


def linspace_timesteps(num_steps: int, t_max: int) -> tuple[int, ...]:
    """int(linspace(0, 1, n) * t_max), increasing: the walk of Asyrp and DiffusionCLIP."""
    return power_timesteps(num_steps, t_max, 1.0)


def power_timesteps(num_steps: int, t_max: int, power: float) -> tuple[int, ...]:
    """int(linspace(0, 1, n) ** power * t_max), increasing from 0 to t_max.

    A power above 1 spends more steps near the image, where the trajectory bends most. Raises
    InputError if fewer than two steps are asked for or they would not be distinct.
    """
    if num_steps < 2:
        raise InputError(f"at least 2 steps are needed, got {num_steps}")
    grid = torch.linspace(0, 1, num_steps, dtype=torch.float64) ** power * t_max
    steps = tuple(int(x) for x in grid.tolist())
    if len(set(steps)) != num_steps:
        raise InputError(f"{num_steps} steps of power {power} up to {t_max} are not distinct")
    return steps
