"""From stored activations to a ready HSpaceSae."""

from __future__ import annotations

from pathlib import Path

import torch

from casl_bench.core.content_hash import hash_tensors
from casl_bench.core.errors import InputError
from casl_bench.sae.activation_sampler import (
    Activations,
    ActivationSampler,
    activation_statistics,
)
from casl_bench.sae.h_space_sae import HSpaceSae
from casl_bench.sae.sparse_autoencoder import SaeConfig
from casl_bench.sae.trainer import Progress, SaeTraining, train_sae


def fit_h_space_sae(
    activations: Activations,
    config: SaeConfig,
    training: SaeTraining,
    generator: torch.Generator,
    *,
    workspace: Path | None = None,
    progress: Progress | None = None,
) -> HSpaceSae:
    """Normalise, train and freeze. Choice: one vector a position of h, at every visited timestep.

    Args:
        activations: h of the training images (a `TrajectoryStore`).
        config: the autoencoder; `d_in` must be the channels of h.
        training: how to train it.
        generator: all random numbers of the fit.
        workspace: where checkpoints go; None keeps none.
        progress: called after every step.

    Raises:
        InputError: if the channels differ.
        InvalidBenchmarkError: if activations are not finite or training diverges.
    """
    statistics = activation_statistics(activations)
    if statistics.mean.shape[1] != config.d_in:
        raise InputError(f"h has {statistics.mean.shape[1]} channels, the SAE {config.d_in}")
    # Equal statistics to the last bit stand for equal data: enough to tell checkpoints apart.
    data_hash = hash_tensors({"mean": statistics.mean, "scale": statistics.scale})
    sampler = ActivationSampler(activations, statistics)
    with torch.enable_grad():
        sae = train_sae(
            config,
            training,
            sampler,
            generator,
            workspace=workspace,
            data_hash=data_hash,
            progress=progress,
        )
    return HSpaceSae(sae, statistics.timesteps, statistics.mean, statistics.scale)
