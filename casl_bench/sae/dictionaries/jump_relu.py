"""JumpReLU: every latent has a threshold of its own, below which it is silent."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from casl_bench.sae.dictionary import SaeConfig, SaeInfo, register_sae
from casl_bench.sae.training import SparseAutoencoder

_PACE = 10.0
"""Thresholds move this many times faster than weights: fits here take hundreds of steps, not the
hundred thousand of the source."""


class JumpReluConfig(SaeConfig):
    """Settings of JumpReLU."""

    threshold: float = Field(default=0.03, gt=0)  # of every latent at the start
    # Width of the kernel through which thresholds get gradients, in units of pre-activations
    bandwidth: float = Field(default=0.1, gt=0)
    l0_weight: float = Field(default=1.0, ge=0)  # of the sparsity term: L0 within a tenth of k


class _Step(torch.autograd.Function):
    """H(pre - threshold), whose gradient reaches the threshold through a rectangle kernel."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2).to(grad)
        return None, -(near * grad).sum(0) / ctx.bandwidth, None


@register_sae
class JumpRelu(SparseAutoencoder):
    """z = pre H(pre - threshold), with (L0 / k - 1)² as the sparsity term.

    Source: Rajamanoharan et al. 2024, arXiv 2407.14435, sections 3 and 4 and appendix (the term
    with a target L0).
    """

    info: ClassVar[SaeInfo] = SaeInfo(
        name="jump_relu",
        title="JumpReLU",
        source="Rajamanoharan et al. 2024, arXiv 2407.14435",
        version=2,
    )
    config_class = JumpReluConfig

    def __init__(self, config: JumpReluConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.bandwidth, self.l0_weight = config.bandwidth, config.l0_weight
        start = torch.full((config.d_sae,), config.threshold).log() / _PACE
        self.slow_log_threshold = nn.Parameter(start)

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0."""
        return torch.relu(pre) * self._open(pre)

    def penalty(self, pre: Tensor, z: Tensor) -> Tensor:
        """The squared relative distance of the mean number of active latents from k."""
        l0 = self._open(pre).sum(1).mean()
        return self.l0_weight * (l0 / self.config.k - 1) ** 2

    def _open(self, pre: Tensor) -> Tensor:
        threshold = (_PACE * self.slow_log_threshold).exp()
        gate: Tensor = _Step.apply(pre, threshold, self.bandwidth)
        return gate
