"""How good an SAE is: on held-out activations beside PCA and the mean, and downstream.

Sums are accumulated over all vectors and divided once, so no number depends on a batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import Backbone
from casl_bench.models.micro_batch import row_blocks
from casl_bench.sae.sae import HSpaceSae

Reconstruct = Callable[[Tensor, int], Tensor]
"""(h [n, C, h, w], t) -> h_hat, same shape, such as `HSpaceSae.reconstruct`."""

_IMAGES_AT_ONCE = 64


class HSpacePca:
    """Reconstruction from the first principal components of normalised h; of none: the mean.

    Normalisation is the SAE's, so both explain the same numbers. `centre` is the mean [C] of the
    normalised vectors over all timesteps, `components` [rank, C] orthonormal rows, first the
    strongest.
    """

    def __init__(self, sae: HSpaceSae, centre: Tensor, components: Tensor) -> None:
        self.sae = sae
        self.centre = centre
        self.components = components

    @classmethod
    def fit(cls, sae: HSpaceSae, activations: TrajectoryStore, rank: int) -> HSpacePca:
        """From the activations that the SAE was trained on; sums in float64.

        Raises InputError on a rank outside [0, C].
        """
        channels = sae.channels
        if not 0 <= rank <= channels:
            raise InputError(f"rank {rank} is outside [0, {channels}]")
        total = torch.zeros(channels, dtype=torch.float64)
        products = torch.zeros(channels, channels, dtype=torch.float64)
        count = 0
        for vectors in _normalised(sae, activations):
            rows = vectors.cpu().double()
            total += rows.sum(0)
            products += rows.T @ rows
            count += len(rows)
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        vectors = torch.linalg.eigh(covariance).eigenvectors  # columns, weakest first
        components = vectors.T.flip(0)[:rank].float()
        return cls(sae, mean.float().to(sae.device), components.to(sae.device))

    def reconstruct_rows(self, rows: Tensor) -> Tensor:
        """Normalised vectors [m, C] → their reconstructions [m, C]."""
        return (rows - self.centre) @ self.components.T @ self.components + self.centre


@dataclass(frozen=True)
class ReconstructionQuality:
    """Quality on normalised vectors, in which every timestep weighs the same."""

    explained_variance: float  # 1 - sum_c Var(h - h_hat)_c / sum_c Var(h)_c; at most 1
    # sum ||h - h_hat||^2 / sum ||h - mean||^2, with the training mean of each timestep; 1 for
    # predicting that mean
    normalised_mse: float
    # Mean cosine of h and h_hat, both minus that mean; None for the mean itself, which has no
    # direction
    cosine: float | None
    l0: float  # mean number of active latents (or components) a vector
    # Share of latents that fire on none of the vectors; None without latents
    dead_fraction: float | None
    vectors: int  # how many


class _Sums:
    """Everything that the quality is made of, in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        # Sums stay on the CPU: not every device has float64.
        self.error = torch.zeros(channels, dtype=torch.float64)
        self.error_squared = torch.zeros(channels, dtype=torch.float64)
        self.h = torch.zeros(channels, dtype=torch.float64)
        self.h_squared = torch.zeros(channels, dtype=torch.float64)
        self.cosine = 0.0

    def add(self, h: Tensor, h_hat: Tensor) -> None:
        h, h_hat = h.cpu().double(), h_hat.cpu().double()
        self.count += len(h)
        self.error += (h - h_hat).sum(0)
        self.error_squared += ((h - h_hat) ** 2).sum(0)
        self.h += h.sum(0)
        self.h_squared += (h**2).sum(0)
        self.cosine += float(torch.cosine_similarity(h, h_hat, dim=1).sum())

    def quality(self, l0: float, dead_fraction: float | None) -> ReconstructionQuality:
        n = self.count
        variance_left = (self.error_squared / n - (self.error / n) ** 2).sum()
        variance = (self.h_squared / n - (self.h / n) ** 2).sum()
        if n == 0 or not float(variance) > 0:
            raise InputError("held-out activations do not vary")
        return ReconstructionQuality(
            explained_variance=float(1 - variance_left / variance),
            normalised_mse=float(self.error_squared.sum() / self.h_squared.sum()),
            cosine=self.cosine / n if l0 else None,
            l0=l0,
            dead_fraction=dead_fraction,
            vectors=n,
        )


@torch.no_grad()
def sae_quality(
    sae: HSpaceSae, held_out: TrajectoryStore, train: TrajectoryStore
) -> dict[str, ReconstructionQuality]:
    """An SAE beside its references, on activations of images that it was not trained on.

    Of "sae"; "pca", fitted on the SAE's training images, with as many active numbers a vector as
    the SAE has on average; and "mean", the training mean of each timestep. Raises
    InputError on a timestep unknown to the SAE, or activations that do not vary.
    """
    fired = torch.zeros(sae.d_sae, dtype=torch.bool, device=sae.device)
    active = 0
    sums = {name: _Sums(sae.channels) for name in ("sae", "pca", "mean")}
    for rows in _normalised(sae, held_out):
        z = sae.sae.encode(rows)
        fired |= (z != 0).any(0)
        active += int((z != 0).sum())
        sums["sae"].add(rows, sae.sae.decode(z))
        sums["mean"].add(rows, torch.zeros_like(rows))
    l0 = active / sums["sae"].count
    rank = min(max(1, round(l0)), sae.channels)
    pca = HSpacePca.fit(sae, train, rank)
    for rows in _normalised(sae, held_out):
        sums["pca"].add(rows, pca.reconstruct_rows(rows))
    return {
        "sae": sums["sae"].quality(l0, float((~fired).double().mean())),
        "pca": sums["pca"].quality(rank, None),
        "mean": sums["mean"].quality(0, None),
    }


@torch.no_grad()
def downstream_error(
    backbone: Backbone, reconstruct: Reconstruct, held_out: TrajectoryStore, rows: Sequence[int]
) -> float:
    """What replacing h costs the noise prediction; 0 where nothing is lost.

    mean_t sum_i ||eps(x_t | h_hat) - eps(x_t)||^2 / sum_i ||eps(x_t)||^2, over some rows of images
    that `reconstruct` was not fitted on. Raises InputError if no row is given.
    """
    if not len(rows):
        raise InputError("at least one image is needed")
    errors = []
    for step, t in enumerate(held_out.timesteps):
        state = backbone.encode(held_out.x_t(step, list(rows)), t)
        eps = backbone.decode(state).cpu().double()
        eps_hat = backbone.decode(state, reconstruct(state.h, t) - state.h).cpu().double()
        errors.append(float(((eps_hat - eps) ** 2).sum() / (eps**2).sum()))
    return sum(errors) / len(errors)


def _normalised(sae: HSpaceSae, activations: TrajectoryStore) -> Iterator[Tensor]:
    for step, t in enumerate(activations.timesteps):
        for rows in row_blocks(len(activations), _IMAGES_AT_ONCE):
            yield sae.normalise(activations.h(step, rows).to(sae.device), t)
