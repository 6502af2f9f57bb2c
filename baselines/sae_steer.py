"""SAE steering: latents whose activity contrasts between images that text retrieves; no training.

Training images are ranked by the guide CLIP, their embedding's product with the text direction
(target prompt minus source prompt). The SAE's codes of the top share are compared with those of
the bottom share, and the latents that differ most are shifted. The SAE is the shared one, CASL's
own: what differs from CASL is that no map is learned. Images are retrieved by their text
similarity, so the method counts as guided by text; it never sees a label.

Sources. Score: SAeUron (Cywiński & Deja, arXiv 2501.18052): mean activation on images with the
concept minus that on those without, each divided by its sum over latents, at every timestep; here
averaged over the edit window, and with retrieved images in the place of generated ones. Shift: the
latent's decoder direction times a typical large activation (Surkov et al., arXiv 2410.22366, add a
multiple of the mean one). Choices of ours: the 99th percentile of the positive activations as that
size, since a latent of a TopK code is silent nearly everywhere; and each position weighted by the
latent's own mean map, since concepts are local and an even shift moved nothing when tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.casl import top_mask
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import (
    ConfiguredMethod,
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    register_method,
)
from casl_bench.methods.step_directions import visited_steps
from casl_bench.methods.text_contrast import retrieve
from casl_bench.sae.sae import HSpaceSae


class SaeSteerConfig(MethodConfig):
    """Settings of retrieval and of the shift."""

    # Of the training images, the share taken from either end of the ranking
    retrieved_share: float = Field(0.125, gt=0, le=0.5)
    k: int = Field(16, gt=0)  # number of latents shifted
    # Of a latent's positive activations on retrieved images: the size of its shift
    quantile: float = Field(0.99, gt=0, le=1)
    # Latents are ranked by the size of their contrast, and those of a negative one are shifted
    # down; False ranks by the contrast itself and shifts up only
    suppress: bool = True
    # Inject at visited timesteps t >= t_edit, which are also those of the contrast
    t_edit: int = 350
    asymmetric: bool = False  # asymmetric step (as Asyrp) instead of plain injection
    gain: float = 1.0  # factor on the shift at strength 1


@torch.no_grad()
def mean_code(sae: HSpaceSae, maps: list[tuple[Tensor, int]]) -> Tensor:
    """Mean code [d_sae, h, w] over images and timesteps, of pairs (h [n, C, h, w], t)."""
    (h, t), *others = maps
    total, count = sae.encode(h.to(sae.device), t).sum(0), len(h)
    for h, t in others:
        total, count = total + sae.encode(h.to(sae.device), t).sum(0), count + len(h)
    return total / count


@dataclass(frozen=True)
class Contrast:
    """What distinguishes two groups of images in an SAE's code."""

    # [d_sae, h, w], share of the group with the concept's activation that falls on a unit, minus
    # the same of the other group, averaged over timesteps
    score: Tensor
    present: Tensor  # [d_sae, h, w], mean code of the group with the concept
    absent: Tensor  # [d_sae, h, w], mean code of the other group

    def latent_scores(self) -> Tensor:
        """[d_sae], over all positions."""
        return self.score.sum((1, 2))


def contrast_codes(
    sae: HSpaceSae, store: TrajectoryStore, steps: list[int], present: Tensor, absent: Tensor
) -> Contrast:
    """Contrast of the codes of two groups of images, given by their places in the store."""
    groups = [
        torch.stack([mean_code(sae, [(store.h(s, g), store.timesteps[s])]) for s in steps])
        for g in (present, absent)
    ]
    # A step's activation sums to one: the score of SAeUron, on units instead of latents.
    a, b = (g / g.sum((1, 2, 3), keepdim=True).clamp_min(1e-12) for g in groups)
    return Contrast((a - b).mean(0), groups[0].mean(0), groups[1].mean(0))


def large_activations(
    sae: HSpaceSae,
    store: TrajectoryStore,
    steps: list[int],
    images: Tensor,
    latents: Tensor,
    quantile: float,
) -> Tensor:
    """[k]: this quantile of each latent's positive activations; 0 where it has none.

    At these steps, on the images at places [r], of latents [k] int64; `quantile` in (0, 1].
    """
    maps = [(store.h(s, images).to(sae.device), store.timesteps[s]) for s in steps]
    codes = [sae.encode(h, t)[:, latents] for h, t in maps]
    rows = torch.stack(codes).transpose(0, 2).flatten(1)
    found = [row[row > 0] for row in rows]
    # Sorted by NumPy: torch.quantile refuses more than 16 million numbers.
    sizes = [float(np.quantile(r.cpu().numpy(), quantile)) if len(r) else 0.0 for r in found]
    return torch.tensor(sizes, device=sae.device)


def latent_shift(size: Tensor, maps: Tensor) -> Tensor:
    """Shift of latents [k, h, w], each placed by its own map; 0 where the map is 0 everywhere.

    `size` [k], signed, is reached where the latent is at its most active; `maps` [k, h, w] >= 0 are
    mean codes.
    """
    peak = maps.amax((1, 2), keepdim=True)
    return size[:, None, None] * maps / torch.where(peak > 0, peak, 1.0)


class SaeSteerEditor(HSpaceEditor):
    """Adds what the SAE decodes of a constant shift of k latents."""

    def __init__(
        self, task: EditTask, config: SaeSteerConfig, sae: HSpaceSae, fitted: Mapping[str, Tensor]
    ) -> None:
        """Keep what was fitted: `latents` [k], their `shift` [k, h, w], `score` [d_sae, h, w]."""
        cost = FitCost(parameters=fitted["shift"].numel())
        window = EditWindow(config.t_edit, asymmetric=config.asymmetric)
        super().__init__(task.backbone, window, noise_seed=0, cost=cost)
        self.config, self.sae = config, sae
        self._fitted = {name: tensor.to(sae.device) for name, tensor in fitted.items()}
        self.score = self._fitted["score"]
        self._dz = torch.zeros_like(self.score)
        self._dz[self._fitted["latents"]] = config.gain * self._fitted["shift"]

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """The decoded shift, the same for every image."""
        return self.sae.decode_delta(self._dz[None], t).expand_as(h)

    def latent_ranking(self) -> Tensor:
        """[d_sae] latents by their contrast, best first; by its size where some are suppressed."""
        return self._ranked(self.score.sum((1, 2)))

    def unit_ranking(self) -> Tensor:
        """[d_sae * h * w] (latent, position) units likewise, best first."""
        return self._ranked(self.score.flatten())

    def state(self) -> dict[str, Tensor]:
        """The latents, their shift, and the contrast that ranks."""
        return dict(self._fitted)

    def _ranked(self, scores: Tensor) -> Tensor:
        worth = scores.abs() if self.config.suppress else scores
        return torch.argsort(worth.cpu(), descending=True, stable=True)


@register_method
class SaeSteer(ConfiguredMethod[SaeSteerConfig]):
    """Steering by the SAE latents of retrieved images."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="sae_steer",
        title="SAE steering",
        source="SAeUron, arXiv 2501.18052 (score); Surkov et al., arXiv 2410.22366 (shift)",
        version=1,
        supervision="text",
        space="h_space",
        uses_sae=True,
        deterministic=True,
    )
    config_class = SaeSteerConfig

    @classmethod
    def search_space(cls) -> dict[str, tuple[int | float | str | bool, ...]]:
        """What a tuning sweep varies: which latents are shifted, when and by which step."""
        return {
            "k": (4, 16, 64),
            "suppress": (False, True),
            "t_edit": (100, 250, 350, 500),
            "asymmetric": (False, True),
        }

    def fit(self, task: EditTask) -> SaeSteerEditor:
        """Retrieve images, contrast their codes; no U-Net call.

        Raises InputError if the task grants no SAE or no guide CLIP.
        """
        if task.saes is None or task.guide_clip is None:
            raise InputError("sae_steer needs an SAE and a guide CLIP in its task")
        config, store, sae = self.config, task.trajectories, task.saes.get()
        steps = visited_steps(store.timesteps, config.t_edit)
        share = config.retrieved_share
        present, absent = retrieve(task.guide_clip, task.train.x_0, task.concept, share)
        contrast = contrast_codes(sae, store, steps, present, absent)
        scores = contrast.latent_scores()
        worth = scores.abs() if config.suppress else scores
        latents = top_mask(worth, config.k).nonzero().flatten()
        up = scores[latents] > 0
        maps = torch.where(up[:, None, None], contrast.present[latents], contrast.absent[latents])
        images = torch.cat([present, absent])
        size = large_activations(sae, store, steps, images, latents, config.quantile)
        shift = latent_shift(torch.where(up, size, -size), maps)
        fitted = {"latents": latents, "shift": shift, "score": contrast.score}
        return SaeSteerEditor(task, config, sae, fitted)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> SaeSteerEditor:
        """The editor from its stored shift. Raises InputError where the task grants no SAE."""
        if task.saes is None:
            raise InputError("sae_steer needs an SAE in its task")
        return SaeSteerEditor(task, self.config, task.saes.get(), state)
