"""What an SAE must beat: principal components with as many active numbers, and the mean alone."""

from __future__ import annotations

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.core.micro_batch import row_blocks
from casl_bench.sae.activation_sampler import Activations
from casl_bench.sae.h_space_sae import HSpaceSae

_IMAGES_AT_ONCE = 64


class HSpacePca:
    """Reconstruction from the first `rank` principal components of normalised h; 0 = the mean.

    Normalisation is the SAE's, so both explain the same numbers. Build it with `fit`.

    Args:
        sae: whose timesteps, means and scales to use.
        centre: [C] mean of the normalised vectors over all timesteps.
        components: [rank, C], orthonormal rows, first the strongest.
    """

    def __init__(self, sae: HSpaceSae, centre: Tensor, components: Tensor) -> None:
        self.sae = sae
        self.centre = centre
        self.components = components

    @classmethod
    def fit(cls, sae: HSpaceSae, activations: Activations, rank: int) -> HSpacePca:
        """From the activations that the SAE was trained on; sums in float64.

        Args:
            sae: gives the normalisation.
            activations: h of the training images.
            rank: in [0, C].

        Raises:
            InputError: on a rank outside [0, C].
        """
        channels = sae.channels
        if not 0 <= rank <= channels:
            raise InputError(f"rank {rank} is outside [0, {channels}]")
        total = torch.zeros(channels, dtype=torch.float64)
        products = torch.zeros(channels, channels, dtype=torch.float64)
        count = 0
        for step, t in enumerate(activations.timesteps):
            for block in row_blocks(len(activations), _IMAGES_AT_ONCE):
                rows = sae.normalise(activations.h(step, block), t).double()
                total += rows.sum(0)
                products += rows.T @ rows
                count += len(rows)
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        vectors = torch.linalg.eigh(covariance).eigenvectors  # columns, weakest first
        return cls(sae, mean.float(), vectors.T.flip(0)[:rank].float())

    @property
    def rank(self) -> int:
        """Active numbers a vector."""
        return len(self.components)

    def reconstruct_rows(self, rows: Tensor) -> Tensor:
        """Normalised vectors [m, C] → their reconstructions [m, C]."""
        return (rows - self.centre) @ self.components.T @ self.components + self.centre

    def reconstruct(self, h: Tensor, t: int) -> Tensor:
        """h_hat of h [n, C, h, w] at timestep t, in the units of h."""
        rows = self.reconstruct_rows(self.sae.normalise(h, t))
        return self.sae.denormalise(rows, t, h.shape)
