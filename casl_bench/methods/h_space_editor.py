"""The one reverse process that all h-space editors share.

x_{t_next} = sqrt(ab_next) P_t(eps(x_t | delta_h)) + sqrt(1 - ab_next) eps', where eps' is eps(x_t)
for Asyrp's asymmetric step and eps(x_t | delta_h) for plain injection. A U-Net pass is the unit of
cost: strengths and images share batches, an x_t that several strengths share is encoded once, the
two decoder passes of an asymmetric step share their encoder half, and below the edit window every
step is one plain pass.

Source: Kwon et al. 2023 (Asyrp), eq. 5 and section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import ddim_step, generation_steps
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import FitCost
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.micro_batch import row_blocks, run_in_micro_batches
from casl_bench.models.random_numbers import image_noise

DeltaH = Callable[[Tensor, int, Tensor], Tensor]
"""(h [n, C, h, w], t, temb [n, D]) -> delta_h of strength 1, [n, C, h, w], row by row."""


@dataclass(frozen=True)
class EditWindow:
    """When and how delta_h is injected."""

    t_edit: int  # edit at timesteps t >= t_edit
    t_end: int = 1000  # and t < t_end; the number of timesteps edits from the very start
    t_boost: int = 0  # quality boosting: noise (eta = 1) at timesteps t < t_boost; 0 = none
    # The edit is seen by the prediction of x_0 only, not by the direction term
    asymmetric: bool = False

    def edits(self, t: int) -> bool:
        """Whether timestep t is edited."""
        return self.t_edit <= t < self.t_end


def checked_strengths(strengths: Sequence[float]) -> Tensor:
    """[S] float32. Raises InputError if a strength is not finite."""
    factors = torch.tensor(list(strengths), dtype=torch.float64).float()
    if not bool(torch.isfinite(factors).all()):
        raise InputError(f"strengths must be finite numbers, got {list(strengths)}")
    return factors


@torch.no_grad()
def generate_edits(
    backbone: Backbone,
    inversions: Inversions,
    strengths: Sequence[float],
    delta_h: DeltaH,
    window: EditWindow,
    noise_seed: int,
) -> Tensor:
    """Regenerate n inverted images with delta_h injected, at S strengths: [S, n, 3, H, W] float32.

    On the CPU, not clamped. Strengths are factors of delta_h; 0 is the reconstruction itself, never
    boosted. The boosting noise is sampled per image and timestep and is the same for every
    strength. Raises InputError if a strength is not finite.
    """
    factors = checked_strengths(strengths)
    edited = factors.nonzero().flatten()
    result = inversions.reconstruction[None].repeat(len(factors), 1, 1, 1, 1)
    if len(edited) and len(inversions):
        result[edited] = _edit(backbone, inversions, factors[edited], delta_h, window, noise_seed)
    return result


def _edit(
    backbone: Backbone,
    inversions: Inversions,
    factors: Tensor,
    delta_h: DeltaH,
    window: EditWindow,
    noise_seed: int,
) -> Tensor:
    """[S, n, 3, H, W] for S strengths that are all other than 0."""
    count, device = len(inversions), backbone.device
    shape = inversions.x_T.shape[1:]
    # Rows of x_t: n while all strengths share their trajectories, S * n once these have parted.
    x_t = inversions.x_T.to(device)
    for t, t_next in generation_steps(inversions.timesteps):
        ab_t, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
        noise = None
        if t < window.t_boost:
            purpose = f"quality boosting at t = {t}"
            white = image_noise(shape, inversions.noise_keys, noise_seed, purpose).to(device)
            noise = backbone.colour(white)
        tracks = len(x_t) // count
        copies = len(factors) // tracks if window.edits(t) else 1
        x_next = x_t.new_empty(copies, len(x_t), *shape)
        for rows in row_blocks(len(x_t), backbone.micro_batch):
            index = torch.arange(rows.start, rows.stop)
            state = backbone.encode(x_t[rows], t)
            x_t_rows = state.x_t.repeat(copies, 1, 1, 1)
            noise_rows = None if noise is None else noise[index % count].repeat(copies, 1, 1, 1)
            if not window.edits(t):
                eps_for_x_0 = eps_for_direction = backbone.decode(state)
            else:
                row_factors = factors.view(copies, tracks)[:, index // count]
                eps_for_x_0 = eps_for_direction = _decode_edited(
                    backbone, state, delta_h, row_factors
                )
                if window.asymmetric:
                    eps_for_direction = backbone.decode(state).repeat(copies, 1, 1, 1)
            stepped = ddim_step(x_t_rows, eps_for_x_0, eps_for_direction, ab_t, ab_next, noise_rows)
            x_next[:, rows] = stepped.unflatten(0, (copies, len(index)))
        x_t = x_next.flatten(0, 1)
    tracks = len(x_t) // count
    edited: Tensor = x_t.unflatten(0, (tracks, count)).expand(len(factors), *(-1,) * 4).cpu()
    return edited


def _decode_edited(
    backbone: Backbone, state: EncoderState, delta_h: DeltaH, factors: Tensor
) -> Tensor:
    """eps(x_t | factor * delta_h) for factors [k, m] of m encoder states: [k * m, 3, H, W].

    What a method has learned lies where the U-Net does.
    """
    (unit,) = run_in_micro_batches(
        lambda h, temb: (delta_h(h, state.t, temb),), backbone.micro_batch, state.h, state.temb
    )
    rows = torch.arange(factors.numel())
    scales = factors.flatten()[:, None, None, None].to(unit)
    # Never more than one micro-batch of skip connections is copied.
    return torch.cat(
        [
            backbone.decode(
                state.take(block % len(state)), scales[block] * unit[block % len(state)]
            )
            for block in rows.split(backbone.micro_batch)
        ]
    )


class HSpaceEditor:
    """Base of editors that inject a delta_h: `Editor` and `SupportsDeltaH` for one function.

    A subclass gives `unit_delta_h` and `state`. `noise_seed` is that of the boosting noise.
    """

    def __init__(
        self, backbone: Backbone, window: EditWindow, noise_seed: int, cost: FitCost
    ) -> None:
        self.backbone = backbone
        self.window = window
        self.noise_seed = noise_seed
        self.cost = cost

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """delta_h of strength 1: [n, C, h, w] like h; row i depends on row i alone."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Everything fitted, as tensors."""
        raise NotImplementedError

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """[S, n, 3, H, W]: every image at every strength; see `Editor.edit`."""
        return generate_edits(
            self.backbone,
            inversions,
            strengths,
            self.unit_delta_h,
            self.window,
            self.noise_seed,
        )

    @torch.no_grad()
    def delta_h(self, h: Tensor, t: int, strength: float) -> Tensor:
        """delta_h for h [n, C, h, w] at timestep t; same shape."""
        temb = self.backbone.time_embedding(t, len(h)).to(h)
        return strength * self.unit_delta_h(h, t, temb)
