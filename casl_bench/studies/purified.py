"""Pictures as the diffusion model would draw them: noised a little, and denoised again.

What is drawn survives. What only deceives networks, and half-drawn ghosts, do not, whatever network
they were made against: nothing has to be known of the attack.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.models.backbone import Backbone
from casl_bench.models.random_numbers import image_noise

TIMESTEP, STEPS = 150, 4
"""Noise of a seventh of the way; in fewer steps edges blur."""


@torch.no_grad()
def purified(backbone: Backbone, images: Tensor, image_ids: Sequence[str], seed: int) -> Tensor:
    """Images [n, 3, H, W] in [-1, 1] → the same, purified; the noise of an image id is always one.

    Source: Nie et al. 2022, Diffusion Models for Adversarial Purification, arXiv 2205.07460; with
    deterministic steps in the place of their stochastic ones.
    """
    walk = sorted({round(TIMESTEP * step / STEPS) for step in range(STEPS + 1)})
    noise = backbone.colour(image_noise(images.shape[1:], image_ids, seed, "purification"))
    alpha_bar = float(backbone.schedule.alpha_bar(TIMESTEP))
    x_t = alpha_bar**0.5 * images + (1 - alpha_bar) ** 0.5 * noise
    return ddim_generation(backbone, x_t.float(), walk).clamp(-1, 1)
