"""The edit as its formulas say it, with no thought of cost: what `generate_edits` is measured by.

One image and one strength at a time, a whole U-Net pass for every eps, so two for an asymmetric
step. Nothing is shared and nothing is batched.

Source: Kwon et al. 2023 (Asyrp), eq. 5 and section 3.4.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_step, generation_steps
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.h_space_editor import DeltaH, EditWindow
from casl_bench.models.backbone import Backbone
from casl_bench.models.random_numbers import image_noise


@torch.no_grad()
def plain_edits(
    backbone: Backbone,
    inversions: Inversions,
    strengths: Sequence[float],
    delta_h: DeltaH,
    window: EditWindow,
    noise_seed: int,
) -> Tensor:
    """What `generate_edits` gives for strengths other than 0, up to the last bits.

    Args:
        backbone: the noise predictor; its passes are counted, its weights are used as they are.
        inversions: n images.
        strengths: S factors of delta_h, none of them 0.
        delta_h: called with one image.
        window: when to edit.
        noise_seed: of the boosting noise.

    Returns:
        [S, n, 3, H, W] float32, on the CPU, not clamped.
    """
    single = copy.copy(backbone)
    single.micro_batch = 1  # or every image would be filled up to a batch
    return torch.stack(
        [
            torch.cat(
                [
                    _one(single, inversions.take([i]), strength, delta_h, window, noise_seed)
                    for i in range(len(inversions))
                ]
            )
            for strength in strengths
        ]
    )


def _one(
    backbone: Backbone,
    inversions: Inversions,
    strength: float,
    delta_h: DeltaH,
    window: EditWindow,
    noise_seed: int,
) -> Tensor:
    """[1, 3, H, W]: one image at one strength."""
    x_t = inversions.x_T.to(backbone.device)
    for t, t_next in generation_steps(inversions.timesteps):
        if window.edits(t):
            state = backbone.encode(x_t, t)
            unit = delta_h(state.h.cpu(), t, state.temb.cpu())
            eps_for_x_0 = eps_for_direction = backbone.decode(state, strength * unit)
            if window.asymmetric:
                eps_for_direction = backbone.eps(x_t, t)
        else:
            eps_for_x_0 = eps_for_direction = backbone.eps(x_t, t)
        noise = None
        if t < window.t_boost:
            purpose = f"quality boosting at t = {t}"
            white = image_noise(x_t.shape[1:], inversions.noise_keys, noise_seed, purpose).to(x_t)
            noise = backbone.colour(white)
        alpha_bar = backbone.schedule.alpha_bar
        x_t = ddim_step(x_t, eps_for_x_0, eps_for_direction, alpha_bar(t), alpha_bar(t_next), noise)
    return x_t.cpu()
