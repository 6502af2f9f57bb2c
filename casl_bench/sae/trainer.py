"""Trains a sparse autoencoder; killed at any moment, it goes on and ends at the same bits.

Loss: mean squared error + l1_weight * mean_i sum_j z_ij (ReLU only) + aux_weight * auxk, where auxk
is the error left when latents that have long been silent reconstruct the residual.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from casl_bench.core.content_hash import hash_json, hash_tensors
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.sae.checkpoint import load_checkpoint, save_checkpoint
from casl_bench.sae.sparse_autoencoder import SaeConfig, SparseAutoencoder

Sampler = Callable[[int, torch.Generator], Tensor]
"""(count, generator) -> [count, d_in] normalised vectors, drawn with that generator alone."""

Progress = Callable[[int, int], None]
"""(steps done, all steps)."""

_MEDIAN_VECTORS = 8192
_MEDIAN_ROUNDS = 50


class SaeTraining(BaseModel):
    """How an SAE is trained.

    Attributes:
        steps: optimiser steps; the default takes about a minute on two cores.
        batch: vectors a step.
        learning_rate: of Adam, at its height.
        warm_up: share of the steps over which the rate climbs from 0.
        decay: share of the steps, at the end, over which it falls to 0.
        l1_weight: of the L1 term, for activation "relu" only.
        aux_k: silent latents that reconstruct the residual; 0 turns revival off.
        aux_weight: of that term.
        dead_after: vectors without firing after which a latent counts as dead.
        pre_bias: what b_pre starts at.
        checkpoint_every: steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=1500, gt=0)
    batch: int = Field(default=1024, gt=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    warm_up: float = Field(default=0.05, ge=0, le=1)
    decay: float = Field(default=0.3, ge=0, le=1)
    l1_weight: float = Field(default=0.01, ge=0)
    aux_k: int = Field(default=64, ge=0)
    aux_weight: float = Field(default=1 / 32, ge=0)
    dead_after: int = Field(default=100_000, gt=0)
    pre_bias: Literal["geometric_median", "mean"] = "geometric_median"
    checkpoint_every: int = Field(default=250, gt=0)

    def rate(self, step: int) -> float:
        """Learning rate at a step, counted from 0."""
        up = (step + 1) / max(1.0, self.warm_up * self.steps)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, up, down)


def train_sae(
    config: SaeConfig,
    training: SaeTraining,
    sampler: Sampler,
    generator: torch.Generator,
    *,
    workspace: Path | None = None,
    data_hash: str = "",
    progress: Progress | None = None,
) -> SparseAutoencoder:
    """Train from scratch, or go on from the workspace's checkpoint.

    Args:
        config: the autoencoder.
        training: how to train it.
        sampler: gives the batches.
        generator: all random numbers: initial weights and batches. The global random state stays
            untouched.
        workspace: where checkpoints go; None keeps none. A checkpoint of other settings, data or
            seed is not used.
        data_hash: identity of what the sampler draws from.
        progress: called after every step.

    Returns:
        The trained autoencoder.

    Raises:
        InvalidBenchmarkError: if the loss stops being finite.
        UsageError: where the workspace cannot be written.
    """
    key = hash_json(
        [
            config.model_dump(mode="json"),
            training.model_dump(mode="json"),
            data_hash,
            hash_tensors({"generator": generator.get_state()}),
        ]
    )
    sae = SparseAutoencoder(config, generator)
    silent_for = torch.zeros(config.d_sae, dtype=torch.int64)
    optimiser = torch.optim.Adam(sae.parameters(), eps=1e-8)
    path = None if workspace is None else workspace / "sae_checkpoint.safetensors"
    done = 0 if path is None else load_checkpoint(path, key, sae, optimiser, silent_for, generator)
    if done == 0:
        start = sampler(max(training.batch, _MEDIAN_VECTORS), generator)
        with torch.no_grad():
            centre = geometric_median(start) if training.pre_bias != "mean" else start.mean(0)
            sae.b_pre.copy_(centre)
    for step in range(done, training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.rate(step)
        h = sampler(training.batch, generator)
        loss = _loss(sae, h, training, silent_for)
        if not bool(torch.isfinite(loss)):
            raise InvalidBenchmarkError(f"SAE training diverged at step {step}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sae.remove_parallel_gradient()
        optimiser.step()
        sae.normalise_decoder()
        finished = step + 1
        if path is not None and (
            finished % training.checkpoint_every == 0 or finished == training.steps
        ):
            save_checkpoint(path, key, sae, optimiser, silent_for, generator, finished)
        if progress is not None:
            progress(finished, training.steps)
    return sae


def _loss(sae: SparseAutoencoder, h: Tensor, training: SaeTraining, silent_for: Tensor) -> Tensor:
    """The loss of one batch; counts the silence of each latent in place."""
    z, h_hat, pre = sae(h)
    dead = silent_for >= training.dead_after
    silent_for += len(h)
    silent_for[z.detach().amax(0) > 0] = 0
    loss = ((h_hat - h) ** 2).mean()
    if sae.config.activation == "relu":
        loss = loss + training.l1_weight * z.sum(1).mean()
    if training.aux_k and bool(dead.any()):
        residual = (h - h_hat).detach()
        loss = loss + training.aux_weight * auxk_loss(sae, residual, pre, dead, training.aux_k)
    return loss


def auxk_loss(
    sae: SparseAutoencoder, residual: Tensor, pre: Tensor, dead: Tensor, aux_k: int
) -> Tensor:
    """||residual - residual_hat||^2 / ||residual - mean||^2, residual_hat from dead latents only.

    Choice: ReLU stays on, as in the source: a latent that is negative on every input then gets no
    gradient. Without it such latents came back in our trials, but the error rose by 4 to 70 %, the
    more the deader they were.

    Args:
        sae: the autoencoder; its decoder's bias takes no part.
        residual: [m, d_in], without gradient.
        pre: [m, d_sae] pre-activations.
        dead: [d_sae] bool, at least one.
        aux_k: latents used a vector, at most as many as are dead.

    Returns:
        A number >= 0, and 0 where the quotient is not a number (nothing is left to explain).
    """
    members = dead.nonzero().flatten()
    values, index = torch.relu(pre[:, members]).topk(min(aux_k, len(members)), dim=1)
    code = torch.zeros(len(pre), len(members)).scatter(1, index, values)
    error = ((residual - code @ sae.W_dec[members]) ** 2).mean()
    quotient = error / ((residual - residual.mean(0)) ** 2).mean()
    return torch.nan_to_num(quotient, nan=0.0, posinf=0.0)


def geometric_median(vectors: Tensor) -> Tensor:
    """The point [d] of least summed distance to vectors [m, d], by Weiszfeld's iteration."""
    point = vectors.mean(0)
    for _ in range(_MEDIAN_ROUNDS):
        distance = (vectors - point).norm(dim=1).clamp_min(1e-8)
        weights = 1 / distance
        moved = (weights[:, None] * vectors).sum(0) / weights.sum()
        if bool((moved - point).norm() < 1e-6 * (1 + point.norm())):
            return moved
        point = moved
    return point
