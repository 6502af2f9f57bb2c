"""BatchTopK: k active latents per vector on average over a batch; a threshold when it is used."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.sae.dictionary import SaeConfig, SaeInfo, register_sae
from casl_bench.sae.training import SparseAutoencoder

_SMOOTHING = 0.99


@register_sae
class BatchTopK(SparseAutoencoder):
    """While training the k m largest of a batch of m vectors stay; later all above a threshold.

    The threshold is the running mean of the smallest activation that stayed, so that a vector's
    code does not depend on its batch.
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="batch_top_k",
        title="BatchTopK",
        source="Bussmann et al. 2024, arXiv 2412.06410, section 3",
        version=1,
    )
    threshold: Tensor

    def __init__(self, config: SaeConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.register_buffer("threshold", torch.zeros(()))

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0."""
        z = torch.relu(pre)
        if not self.training:
            return z * (z > self.threshold)
        count = min(self.config.k * len(z), z.numel())
        smallest = z.detach().flatten().topk(count, sorted=True).values[-1]
        with torch.no_grad():
            weight = 1 - _SMOOTHING if self.threshold > 0 else 1.0
            self.threshold += weight * (smallest - self.threshold)
        return z * (z >= smallest)
