"""Matryoshka: the first latents must reconstruct alone, so that general ones come first."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from casl_bench.sae.dictionaries.batch_top_k import BatchTopK
from casl_bench.sae.dictionary import SaeConfig, SaeInfo, register_sae


class MatryoshkaConfig(SaeConfig):
    """Settings of Matryoshka."""

    # Of the latents, the shares that each reconstruct alone; all latents are added
    prefixes: tuple[float, ...] = Field(default=(1 / 16, 1 / 8, 1 / 4, 1 / 2), min_length=1)


@register_sae
class Matryoshka(BatchTopK):
    """BatchTopK whose loss is the mean over nested prefixes of the latents.

    Meant against absorption: a general latent inside a small prefix cannot leave its cases to
    special ones outside of it.
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="matryoshka",
        title="Matryoshka",
        source="Bussmann et al. 2025, arXiv 2503.17547, section 3",
        version=1,
    )
    config_class = MatryoshkaConfig

    def __init__(self, config: MatryoshkaConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        sizes = {max(1, int(share * config.d_sae)) for share in config.prefixes}
        self.sizes = sorted(sizes | {config.d_sae})

    def reconstruction_loss(self, h: Tensor, z: Tensor) -> Tensor:
        """Mean over prefixes of the squared error of what their latents decode."""
        total = torch.zeros(())
        partial: Tensor = self.b_dec
        start = 0
        for end in self.sizes:
            partial = partial + z[:, start:end] @ self.W_dec[start:end]
            total = total + ((partial - h) ** 2).mean()
            start = end
        return total / len(self.sizes)
