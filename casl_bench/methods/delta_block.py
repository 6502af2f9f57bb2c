"""Asyrp's delta-block: a small implicit function from (h, time embedding) to delta_h.

Two forms, each after the residual block of its U-Net family with 1x1 convolutions: neither looks
at a position's neighbours. Tensors carry the names of the authors' checkpoints.

Source: Kwon et al. 2023 (Asyrp), section 3.3 and code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.models.weights import fitted_state, read_content

Form = Literal["ddpm", "adm"]

MAX_GROUPS = 32


class DeltaBlock(nn.Module):
    """Base of both forms: h [n, C, h, w] and the time embedding [n, D] → delta_h [n, C, h, w]."""

    @property
    def last_layer(self) -> nn.Conv2d:
        """The convolution that gives delta_h: where it is zero, so is the edit."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)][-1]


class DdpmDeltaBlock(DeltaBlock):
    """conv 1x1, plus the projected time embedding, GroupNorm, swish, conv 1x1."""

    def __init__(self, channels: int, temb_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.temb_proj = nn.Linear(temb_dim, channels)
        self.norm2 = nn.GroupNorm(_groups(channels), channels, eps=1e-6)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        """See `DeltaBlock`."""
        hidden = self.conv1(h) + self.temb_proj(functional.silu(temb))[:, :, None, None]
        delta_h: Tensor = self.conv2(functional.silu(self.norm2(hidden)))
        return delta_h


class AdmDeltaBlock(DeltaBlock):
    """GroupNorm, SiLU, conv 1x1; the time embedding added; GroupNorm, SiLU, conv 1x1."""

    def __init__(self, channels: int, temb_dim: int) -> None:
        super().__init__()
        groups = _groups(channels)
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, channels, 1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(temb_dim, channels))
        # The identity stands where the reference has a dropout, so that the names agree.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        """See `DeltaBlock`."""
        hidden = self.in_layers(h) + self.emb_layers(temb)[:, :, None, None]
        delta_h: Tensor = self.out_layers(hidden)
        return delta_h


def build_delta_block(
    form: Form, channels: int, temb_dim: int, generator: torch.Generator | None = None
) -> DeltaBlock:
    """A delta-block of the backbone's family whose edit is still zero.

    `channels` is C of h, `temb_dim` D of the time embedding. Without a generator of initial weights
    all of them are zero, to be loaded.
    """
    block = _shapes(form, channels, temb_dim).to_empty(device="cpu")
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.zero_()
                assert module.bias is not None
                module.bias.zero_()
                if generator is not None and module is not block.last_layer:
                    spread = module.weight[0].numel() ** -0.5
                    module.weight.uniform_(-spread, spread, generator=generator)
    return block


def _shapes(form: Form, channels: int, temb_dim: int) -> DeltaBlock:
    """A block without numbers: PyTorch's own would be drawn from the global random state."""
    with torch.device("meta"):
        return (DdpmDeltaBlock if form == "ddpm" else AdmDeltaBlock)(channels, temb_dim)


def delta_block_from_state(state: Mapping[str, Tensor], where: str = "") -> DeltaBlock:
    """The delta-block that these tensors belong to, of whichever form, frozen.

    Raises InvalidBenchmarkError if they are of neither form, misshapen or not finite.
    """
    forms: tuple[tuple[Form, str, str], ...] = (
        ("ddpm", "conv1.weight", "temb_proj.weight"),
        ("adm", "in_layers.2.weight", "emb_layers.1.weight"),
    )
    for form, conv, projection in forms:
        if conv in state and projection in state:
            channels = max(1, state[conv].shape[:1].numel())
            temb_dim = state[projection].shape[-1:].numel()
            fitted = fitted_state(_shapes(form, channels, temb_dim).state_dict(), state, where)
            block = build_delta_block(form, channels, temb_dim)
            block.load_state_dict(fitted)
            return block.requires_grad_(False).eval()
    raise InvalidBenchmarkError(
        "these tensors are no Asyrp delta-block", where=where, hint="give one of its authors' files"
    )


def load_delta_block(path: Path) -> DeltaBlock:
    """A delta-block from a checkpoint as Asyrp's authors publish it, frozen.

    That is a dict {"0": block, "1": …, "optimizer": …, "scheduler": …}, of which "0" is taken.
    Raises InvalidBenchmarkError if the file is absent, damaged or holds no such block.
    """
    content = read_content(path)
    state = content.get("0") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InvalidBenchmarkError(
            "no delta-block 0 in the checkpoint",
            where=str(path),
            hint='its authors publish {"0": block, …}',
        )
    return delta_block_from_state(state, str(path))


def _groups(channels: int) -> int:
    """32 as in the reference, or the largest number that small networks allow."""
    return next(g for g in range(min(MAX_GROUPS, channels), 0, -1) if channels % g == 0)
