"""Deterministic DDIM in both directions: pure functions.

Both directions walk the same explicit timesteps 0 = s_0 < … < s_max. Inversion takes the image as
x at s_0 and evaluates eps at the step that it leaves, so it makes one step fewer than generation,
which ends at t = -1 where alpha_bar = 1.

Source: Song et al. 2021 (DDIM), eq. 12; conventions of the Asyrp and DiffusionCLIP code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.micro_batch import row_blocks, run_in_micro_batches

OnStep = Callable[[int, EncoderState], None]
"""Called with the place in `timesteps` and what the encoder half made of x_t there."""

ReplaceH = Callable[[Tensor, int], Tensor]
"""(h [n, C, h, w], t) -> the h to decode instead; same shape."""


def check_timesteps(timesteps: Sequence[int], num_timesteps: int) -> None:
    """Raises InputError unless 0 = s_0 < s_1 < … < T with at least two steps."""
    increasing = all(a < b for a, b in pairwise(timesteps))
    if len(timesteps) < 2 or timesteps[0] != 0 or not increasing:
        raise InputError("timesteps must increase from 0 and be at least two")
    if timesteps[-1] >= num_timesteps:
        raise InputError(f"timestep {timesteps[-1]} is outside [0, {num_timesteps})")


def generation_steps(timesteps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(t, t_next) from s_max down to (0, -1)."""
    down = list(reversed(timesteps))
    return zip(down, [*down[1:], -1], strict=True)


def predict_x_0(x_t: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """P_t, the clean image that x_t would come from if its noise were eps (DDIM, eq. 9)."""
    x_0: Tensor = (x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    return x_0


def ddim_step(
    x_t: Tensor,
    eps_for_x_0: Tensor,
    eps_for_direction: Tensor,
    alpha_bar_t: float,
    alpha_bar_next: float,
    noise: Tensor | None = None,
) -> Tensor:
    """One step of DDIM, towards the image or away from it: x [n, 3, H, W] at the step reached.

    Args:
        x_t: at the step that is left, likewise.
        eps_for_x_0: noise that the clean image is predicted from.
        eps_for_direction: noise that points back at x_t; another one than `eps_for_x_0` makes
            the step asymmetric (Kwon et al. 2023, eq. 5).
        alpha_bar_t: at the step that is left.
        alpha_bar_next: at the step that is reached; 1 is the clean image.
        noise: standard normal, for a stochastic step (eta = 1) towards the image; None: eta = 0.
    """
    x_0 = predict_x_0(x_t, eps_for_x_0, alpha_bar_t)
    variance = 0.0
    if noise is not None:
        # DDIM, eq. 16 with eta = 1.
        variance = (1 - alpha_bar_next) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_next)
    direction = (1 - alpha_bar_next - variance) ** 0.5 * eps_for_direction
    x_next: Tensor = alpha_bar_next**0.5 * x_0 + direction
    if noise is not None:
        x_next = x_next + variance**0.5 * noise
    return x_next


@torch.no_grad()
def ddim_inversion(
    backbone: Backbone,
    x_0: Tensor,
    timesteps: Sequence[int],
    on_step: OnStep | None = None,
    extrapolate: bool = False,
) -> Tensor:
    """From images [n, 3, H, W] float32 in [-1, 1] to the noise x_T that regenerates them.

    x_T is on the backbone's device, near N(0, 1) a pixel where all is well. Plain DDIM inversion,
    that of the Asyrp and DiffusionCLIP code, evaluates eps at the x_t that a step leaves, while
    generation evaluates it at the x_t that the step reaches: the difference is the whole
    reconstruction error. Iterating x_next = step(x_t, eps(x_next, t_next)) to its fixed point takes
    it away for one pass more an iteration (Pan et al. 2023, "Effective Real Image Editing with
    Accelerated Iterative Diffusion Inversion", section 3). `extrapolate` takes most of it away for
    none: the step is made with P_t_next, the clean image, as the line through the P_t of the last
    two steps foretells it (an explicit multistep method, as of Adams and Bashforth; the first step
    is plain).

    `on_step` sees every visited timestep, the last included (one encoder half more). Raises
    InputError for images of the wrong size or timesteps that do not increase from 0.
    """
    check_timesteps(timesteps, backbone.schedule.num_timesteps)
    x_t = x_0
    before: tuple[int, Tensor] | None = None
    for step, (t, t_next) in enumerate(pairwise(timesteps)):
        state = backbone.encode(x_t, t)
        if on_step is not None:
            on_step(step, state)
        eps = backbone.decode(state)
        ab_t, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
        if extrapolate:
            predicted = predict_x_0(state.x_t, eps, ab_t)
            if before is not None:
                ahead = (t_next - t) / (t - before[0])
                foretold = predicted + ahead * (predicted - before[1])
                eps = (state.x_t - ab_t**0.5 * foretold) / (1 - ab_t) ** 0.5
            before = t, predicted
        x_t = ddim_step(state.x_t, eps, eps, ab_t, ab_next)
    if on_step is not None:
        on_step(len(timesteps) - 1, backbone.encode(x_t, timesteps[-1]))
    return x_t


@torch.no_grad()
def ddim_generation(
    backbone: Backbone,
    x_T: Tensor,
    timesteps: Sequence[int],
    replace_h: ReplaceH | None = None,
    encoded: EncoderState | None = None,
) -> Tensor:
    """From noise [n, 3, H, W] float32 at the last timestep to images x_0, deterministically.

    On the backbone's device, not clamped. `replace_h` gives what is decoded instead of h at each
    step (an SAE's reconstruction, say); `encoded` is what the encoder half has made of x_T, where
    that is known. Raises InputError for images of the wrong size or timesteps that do not increase
    from 0.
    """
    check_timesteps(timesteps, backbone.schedule.num_timesteps)
    return ddim_walk(backbone, x_T, tuple(generation_steps(timesteps)), replace_h, encoded)


@torch.no_grad()
def ddim_walk(
    backbone: Backbone,
    x_t: Tensor,
    steps: Sequence[tuple[int, int]],
    replace_h: ReplaceH | None = None,
    encoded: EncoderState | None = None,
) -> Tensor:
    """Some of the steps of `generation_steps`, deterministically: x at the last t_next.

    `x_t` [n, 3, H, W] float32 is at the first step's t, of which `encoded` is the encoder half
    where that is known; each step leaves where the one before has arrived, and none returns x_t.
    """
    blocks = []
    for rows in row_blocks(len(x_t), backbone.micro_batch):
        x = x_t[rows].to(backbone.device)
        known = None if encoded is None else encoded.take(torch.arange(rows.start, rows.stop))
        for t, t_next in steps:
            state = backbone.encode(x, t) if known is None else known
            known = None
            if replace_h is not None:
                (h,) = run_in_micro_batches(
                    lambda h, t=t: (replace_h(h, t),), backbone.micro_batch, state.h
                )
                state = replace(state, h=h)
            eps = backbone.decode(state)
            ab_t, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
            x = ddim_step(state.x_t, eps, eps, ab_t, ab_next)
        blocks.append(x)
    return torch.cat(blocks)
