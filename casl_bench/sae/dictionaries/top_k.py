"""TopK: of every vector the k largest positive pre-activations."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.sae.dictionary import SaeInfo, register_sae
from casl_bench.sae.training import SparseAutoencoder


def keep_top_k(z: Tensor, k: int) -> Tensor:
    """[m, d_sae] >= 0 with all but the k largest of each row set to 0."""
    values, index = z.topk(k, dim=1)
    return torch.zeros_like(z).scatter(1, index, values)


@register_sae
class TopK(SparseAutoencoder):
    """The default dictionary, and the one that CASL is published with here."""

    info: ClassVar[SaeInfo] = SaeInfo(
        name="top_k",
        title="TopK",
        source="Gao et al. 2024, arXiv 2406.04093, section 2",
        version=2,
    )

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0, at most k positive per row."""
        return keep_top_k(torch.relu(pre), self.config.k)
