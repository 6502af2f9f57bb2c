"""Stage 2 of CASL: the linear map from the SAE's code to a change of h that means a concept.

delta_h = W delta_z + b, with delta_z the code of each position, masked to chosen latents.

Source: CASL (arXiv 2601.15441), section on alignment. What delta_z is the paper leaves open.
Choice: the code itself, because a latent then acts exactly where it lives; with the mean
subtracted, silent positions would be pushed too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from casl_bench.sae.h_space_sae import HSpaceSae


class ConceptAlignment(nn.Module):
    """W and b of one concept over a frozen SAE.

    Attributes:
        W: [C, d_sae], zero at the start.
        b: [C], zero at the start.
        mean_activation: [d_sae, h, w], mean code of the training images over the edit window:
            what ranks latents together with W, not trained.
    """

    mean_activation: Tensor

    def __init__(self, sae: HSpaceSae, mean_activation: Tensor) -> None:
        """Start at zero: an unfitted alignment changes nothing.

        Args:
            sae: the frozen SAE.
            mean_activation: [d_sae, h, w], >= 0.
        """
        super().__init__()
        self.sae = sae
        self.W = nn.Parameter(torch.zeros(sae.channels, sae.d_sae))
        self.b = nn.Parameter(torch.zeros(sae.channels))
        self.register_buffer("mean_activation", mean_activation)

    def forward(self, h: Tensor, t: int, mask: Tensor | None = None, bias: bool = True) -> Tensor:
        """delta_h of h at timestep t.

        The map works in the SAE's normalised units and is scaled by the timestep's spread of h,
        so that one W serves all timesteps.

        Args:
            h: [n, C, h, w].
            t: a timestep the SAE knows.
            mask: [d_sae] bool, latents that take part; all where None.
            bias: whether b is added.

        Returns:
            [n, C, h, w].
        """
        with torch.no_grad():
            z = self.sae.encode(h, t)
        return self.shift(z, t, mask=mask, bias=bias)

    def shift(self, z: Tensor, t: int, mask: Tensor | None = None, bias: bool = True) -> Tensor:
        """delta_h of a code z [n, d_sae, h, w]; see `forward`."""
        weight = self.W if mask is None else self.W * mask
        # One product an image: its numbers must not depend on the batch.
        rows = [weight @ code.flatten(1) for code in z]
        delta = torch.stack(rows).reshape(len(z), self.sae.channels, *z.shape[2:])
        if bias:
            delta = delta + self.b[:, None, None]
        return delta * self.sae.scale[self.sae.timesteps.index(t)]

    def sparsity(self) -> Tensor:
        """Group-lasso term: the sum over latents of ‖column of W‖ · mean activation.

        With it the concept gathers in few latents, which is what makes a top-k probe of it
        meaningful; without, the map spreads over all latents that are ever active.
        """
        smooth = (self.W.pow(2).sum(0) + 1e-8).sqrt()
        return (smooth * self.mean_activation.mean((1, 2))).sum()

    def latent_scores(self) -> Tensor:
        """[d_sae]: ‖column of W‖ · mean activation, what ranks a latent's part in the concept."""
        return self.W.detach().norm(dim=0) * self.mean_activation.mean((1, 2))

    def unit_scores(self) -> Tensor:
        """[d_sae * h * w]: the same for each (latent, position), index latent * h * w + p."""
        norms = self.W.detach().norm(dim=0)
        return (norms[:, None] * self.mean_activation.flatten(1)).flatten()

    def tensors(self) -> dict[str, Tensor]:
        """What was fitted, for storing."""
        return {
            "W": self.W.detach().clone(),
            "b": self.b.detach().clone(),
            "mean_activation": self.mean_activation.clone(),
        }

    @classmethod
    def from_tensors(cls, sae: HSpaceSae, tensors: Mapping[str, Tensor]) -> ConceptAlignment:
        """The alignment that `tensors` came from."""
        alignment = cls(sae, tensors["mean_activation"])
        with torch.no_grad():
            alignment.W.copy_(tensors["W"])
            alignment.b.copy_(tensors["b"])
        return alignment


def top_mask(scores: Tensor, k: int) -> Tensor:
    """[n] bool with the k best scores true; ties go to the lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[order[:k]] = True
    return mask


@torch.no_grad()
def mean_code(sae: HSpaceSae, maps: list[tuple[Tensor, int]]) -> Tensor:
    """Mean code over images and timesteps: [d_sae, h, w].

    Args:
        sae: the frozen SAE.
        maps: (h [n, C, h, w], t) pairs.
    """
    total: Tensor | None = None
    count = 0
    for h, t in maps:
        z = sae.encode(h, t).sum(0)
        total = z if total is None else total + z
        count += len(h)
    if total is None:
        raise ValueError("mean_code needs at least one map")
    return total / count
