"""Which training images look like a concept's text, and what tells them from the others.

No label is read: images are ranked by the guide CLIP, their embedding's product with the text
direction (target prompt minus source prompt), and quantities of the top share are compared with
those of the bottom share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from casl_bench.domains.dataset import Concept
from casl_bench.models.clip import ClipModel


def retrieve(clip: ClipModel, images: Tensor, concept: Concept, share: float) -> tuple[Tensor, ...]:
    """Places of the images most and least like the concept's text, by the guide CLIP.

    [r] int64 each, disjoint, on the images' device: `share` of the images [n >= 2, 3, H, W] from
    either end of the ranking, at least one image and at most half of them.
    """
    direction = clip.text_direction(concept.source_prompt, concept.target_prompt).to(images.device)
    order = torch.argsort(clip.encode_image(images) @ direction, descending=True, stable=True)
    count = min(max(1, round(share * len(images))), len(images) // 2)
    return order[:count], order[-count:]


def standardised_contrast(present: Tensor, absent: Tensor) -> Tensor:
    """(mean of present - mean of absent) / pooled standard deviation: [...], without a unit.

    Of two groups of images [n, ...] and [m, ...]; 0 where neither group varies. A quantity that is
    large in every image counts for nothing, one that differs between the groups for much.
    Source: Cohen's d, with the mean of the two variances.
    """
    difference = present.mean(0) - absent.mean(0)
    variance = (present.var(0, unbiased=False) + absent.var(0, unbiased=False)) / 2
    safe = torch.where(variance > 0, variance, 1.0).sqrt()
    return torch.where(variance > 0, difference / safe, 0.0)
