"""ReLU + L1: the first kind of sparse autoencoder; its L1 weight follows the target L0."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from casl_bench.sae.dictionary import SaeConfig, SaeInfo, register_sae
from casl_bench.sae.training import SparseAutoencoder


class ReluConfig(SaeConfig):
    """Settings of ReLU + L1."""

    l1_weight: float = Field(default=0.01, ge=0)  # of the L1 term, at the start
    # How fast the weight follows the mean number of active latents towards k; 0 leaves it as it is
    control: float = Field(default=0.01, ge=0)


@register_sae
class Relu(SparseAutoencoder):
    """All positive pre-activations, kept few by an L1 term.

    Kinds can be compared at one sparsity only, so the term's weight is raised while more than k
    latents are active and lowered while fewer are.
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="relu",
        title="ReLU + L1",
        source="Bricken et al. 2023, Towards Monosemanticity; the weight's control is ours",
        version=1,
    )
    config_class = ReluConfig
    l1_weight: Tensor

    def __init__(self, config: ReluConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.rate = config.control
        self.register_buffer("l1_weight", torch.tensor(config.l1_weight))

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0."""
        return torch.relu(pre)

    def penalty(self, pre: Tensor, z: Tensor) -> Tensor:
        """The weight times the mean over vectors of sum_j z_j."""
        with torch.no_grad():
            excess = ((z > 0).sum(1).float().mean() / self.config.k).clamp_min(1e-3).log()
            self.l1_weight *= (self.rate * excess.clamp(-3, 3)).exp()
        return self.l1_weight * z.sum(1).mean()
