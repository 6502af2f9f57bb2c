"""JumpReLU, as a stranger would write it with docs/add_a_dictionary.md at hand."""

import torch
from torch import nn

from casl_bench.sae.dictionary import SaeInfo, register_sae
from casl_bench.sae.training import SparseAutoencoder


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre, threshold):
        ctx.save_for_backward(pre, threshold)
        return (pre > threshold).float()

    @staticmethod
    def backward(ctx, grad):
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < 0.05).float()
        return None, -(near * grad).sum(0) / 0.1


@register_sae
class StrangerJumpRelu(SparseAutoencoder):
    info = SaeInfo(
        name="stranger_jump_relu", title="JumpReLU (mine)", source="arXiv 2407.14435", version=1
    )

    def __init__(self, config, generator=None):
        super().__init__(config, generator)
        self.log_threshold = nn.Parameter(torch.full((config.d_sae,), -3.5))

    def activate(self, pre):
        return torch.relu(pre) * Step.apply(pre, self.log_threshold.exp())

    def penalty(self, pre, z):
        l0 = Step.apply(pre, self.log_threshold.exp()).sum(1).mean()
        return 0.1 * (l0 / self.config.k - 1) ** 2
