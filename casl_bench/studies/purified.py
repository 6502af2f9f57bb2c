"""Pictures as the diffusion model would draw them: noised a little, and denoised again.

What is drawn survives. What only deceives networks, and half-drawn ghosts, do not, whatever network
they were made against: nothing has to be known of the attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.domains.dataset import Concept
from casl_bench.domains.domain import Domain
from casl_bench.metrics.edit_scores import Array
from casl_bench.models.backbone import Backbone
from casl_bench.models.random_numbers import image_noise
from casl_bench.results.edited_images import EditedImages, Pixels
from casl_bench.results.score_table import ScoreTable
from casl_bench.runs.scoring import Scorers, from_8_bits, to_8_bits

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


class PurifiedScorers:
    """A domain's scorers of pictures that its diffusion model has purified."""

    def __init__(self, domain: Domain, seed: int) -> None:
        self.domain, self.seed = domain, seed
        self.scorers = Scorers(domain)
        self._bases: dict[tuple[str, ...], Pixels] = {}

    def scores(
        self, concept: Concept, pictures: EditedImages, background: Array | None
    ) -> ScoreTable:
        """Scores of pictures; `background` [S, n] is theirs as it was: no network is asked for it.

        An image id stands for one reconstruction.
        """
        ids = pictures.image_ids
        if ids not in self._bases:
            self._bases[ids] = self._purified(pictures.reconstruction, ids)
        edits = np.stack([self._purified(some, ids) for some in pictures.edits])
        pure = replace(pictures, reconstruction=self._bases[ids], edits=edits)
        return replace(self.scorers.scores(concept, pure), background=background)

    def _purified(self, pixels: Pixels, ids: tuple[str, ...]) -> Pixels:
        return to_8_bits(purified(self.domain.backbone, from_8_bits(pixels), ids, self.seed))
