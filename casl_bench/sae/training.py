"""Trains a sparse autoencoder; killed at any moment, it goes on and ends at the same bits.

Loss: mean squared error + l1_weight * mean_i sum_j z_ij (ReLU only) + aux_weight * auxk, where auxk
is the error left when latents that have long been silent reconstruct the residual.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_json, write_bytes
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.micro_batch import row_blocks
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.weights import own_memory
from casl_bench.sae.sae import HSpaceSae, SaeConfig, SparseAutoencoder

Sampler = Callable[[int, torch.Generator], Tensor]
"""(count, generator) -> [count, d_in] normalised vectors, sampled with that generator alone."""

Progress = Callable[[int, int], None]
"""(steps done, all steps)."""

_MEDIAN_VECTORS = 8192
_MEDIAN_ROUNDS = 50
# Vectors taken from one map at a time: reading a map costs the same for one of its positions as
# for all, and too many from one map would make the vectors of a batch alike.
POSITIONS_PER_MAP = 16
_IMAGES_AT_ONCE = 64
_IN_MEMORY = 256 * 10**6
"""Activations of at most so many bytes are read once; larger ones stay on disk."""


def save_checkpoint(
    path: Path,
    key: str,
    sae: SparseAutoencoder,
    optimiser: torch.optim.Adam,
    silent_for: Tensor,
    generator: torch.Generator,
    done: int,
) -> None:
    """Write the state after `done` steps of the training identified by `key`."""
    tensors = {"silent_for": silent_for, "generator": generator.get_state()}
    for name, parameter in sae.named_parameters():
        tensors[name] = parameter.detach()
        for slot, value in optimiser.state[parameter].items():
            tensors[f"adam.{slot}.{name}"] = value
    contiguous = {name: t.cpu().contiguous() for name, t in tensors.items()}
    metadata = {"key": key, "done": str(done), "sha256": _hash_of(contiguous, done)}
    write_bytes(path, save(contiguous, metadata=metadata))


def load_checkpoint(
    path: Path,
    key: str,
    sae: SparseAutoencoder,
    optimiser: torch.optim.Adam,
    silent_for: Tensor,
    generator: torch.Generator,
) -> int:
    """Put the stored state into these objects. Returns the steps done.

    That is 0, with nothing changed, where there is no undamaged checkpoint of this training (a lost
    checkpoint costs time, never another result).
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            if metadata.get("key") != key:
                return 0
            names = list(f.keys())
            tensors = {name: own_memory(f.get_tensor(name)) for name in names}
        done = int(metadata["done"])
        if metadata["sha256"] != _hash_of(tensors, done):
            return 0
    except (OSError, ValueError, KeyError, SafetensorError):
        return 0
    generator.set_state(tensors["generator"])
    silent_for.copy_(tensors["silent_for"])
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(tensors[name])
            slots = ("step", "exp_avg", "exp_avg_sq")
            state = {s: tensors[f"adam.{s}.{name}"] for s in slots}
            # The count of steps stays on the CPU, as Adam has it.
            moved = {s: t if s == "step" else t.to(parameter.device) for s, t in state.items()}
            optimiser.state[parameter] = moved
    return done


def _hash_of(tensors: dict[str, Tensor], done: int) -> str:
    return hash_json([hash_tensors(tensors), done])


class SaeTraining(BaseModel):
    """How an SAE is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Optimiser steps; the default takes about a minute on two cores
    steps: int = Field(default=1500, gt=0)
    batch: int = Field(default=1024, gt=0)  # vectors a step
    learning_rate: float = Field(default=2e-3, gt=0)  # of Adam, at its height
    # Share of the steps over which the rate climbs from 0
    warm_up: float = Field(default=0.05, ge=0, le=1)
    # Share of the steps, at the end, over which it falls to 0
    decay: float = Field(default=0.3, ge=0, le=1)
    l1_weight: float = Field(default=0.01, ge=0)  # of the L1 term, for activation "relu" only
    # Silent latents that reconstruct the residual; 0 turns revival off
    aux_k: int = Field(default=64, ge=0)
    aux_weight: float = Field(default=1 / 32, ge=0)  # of that term
    # Vectors without firing after which a latent counts as dead
    dead_after: int = Field(default=100_000, gt=0)
    pre_bias: Literal["geometric_median", "mean"] = "geometric_median"  # what b_pre starts at
    checkpoint_every: int = Field(default=250, gt=0)  # steps between checkpoints

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
    device: torch.device | str = "cpu",
) -> SparseAutoencoder:
    """Train from scratch, or go on from the workspace's checkpoint.

    Initial weights and batches come from the generator, on the CPU, and are moved to the device;
    the global random state stays untouched. A
    checkpoint of other settings, data (`data_hash`) or seed is not used; without a workspace none
    is kept. Raises InvalidBenchmarkError if the loss stops being finite, UsageError where the
    workspace cannot be written.
    """
    key = hash_json(
        [
            config.model_dump(mode="json"),
            training.model_dump(mode="json"),
            data_hash,
            hash_tensors({"generator": generator.get_state()}),
        ]
    )
    sae = SparseAutoencoder(config, generator).to(device)
    silent_for = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
    optimiser = torch.optim.Adam(sae.parameters(), eps=1e-8)
    path = None if workspace is None else workspace / "sae_checkpoint.safetensors"
    done = 0 if path is None else load_checkpoint(path, key, sae, optimiser, silent_for, generator)
    if done == 0:
        start = sampler(max(training.batch, _MEDIAN_VECTORS), generator).to(device)
        with torch.no_grad():
            centre = geometric_median(start) if training.pre_bias != "mean" else start.mean(0)
            sae.b_pre.copy_(centre)
    for step in range(done, training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.rate(step)
        h = sampler(training.batch, generator).to(device)
        loss = _loss(sae, h, training, silent_for)
        if not bool(torch.isfinite(loss)):
            raise InvalidBenchmarkError(f"SAE training diverged at step {step}")
        optimiser.zero_grad()
        loss.backward()
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
    loss: Tensor = ((h_hat - h) ** 2).mean()
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

    Of the residual [m, d_in], without gradient, pre-activations [m, d_sae], which latents are
    `dead` [d_sae], one at least, and how many of them a vector uses at most. 0 where the quotient
    is not a number (nothing is left to explain).
    """
    members = dead.nonzero().flatten()
    values, index = torch.relu(pre[:, members]).topk(min(aux_k, len(members)), dim=1)
    code = values.new_zeros(len(pre), len(members)).scatter(1, index, values)
    error = ((residual - code @ sae.W_dec[members]) ** 2).mean()
    quotient = error / ((residual - residual.mean(0)) ** 2).mean()
    return torch.nan_to_num(quotient, nan=0.0, posinf=0.0)


def geometric_median(vectors: Tensor) -> Tensor:
    """The point [d] of least summed distance to vectors [m, d], by Weiszfeld's iteration."""
    point = vectors.mean(0)
    for _ in range(_MEDIAN_ROUNDS):
        distance = (vectors - point).norm(dim=1).clamp_min(1e-8)
        weights = 1 / distance
        moved: Tensor = (weights[:, None] * vectors).sum(0) / weights.sum()
        if bool((moved - point).norm() < 1e-6 * (1 + point.norm())):
            return moved
        point = moved
    return point


@dataclass(frozen=True)
class ActivationStatistics:
    """What h is normalised by: h_norm = (h - mean[step]) / scale[step]."""

    timesteps: tuple[int, ...]  # increasing
    mean: Tensor  # [steps, C] float32
    scale: Tensor  # [steps] float32, root mean square of h - mean; 1 where h never changes


def activation_statistics(activations: TrajectoryStore) -> ActivationStatistics:
    """Mean and scale at every timestep, summed in float64.

    Raises InvalidBenchmarkError if activations hold NaN or infinity.
    """
    means, scales = [], []
    if not len(activations):
        raise InputError("an SAE needs at least one image")
    for step, t in enumerate(activations.timesteps):
        channels, height, width = activations.h(step, slice(0, 1)).shape[1:]
        count = len(activations) * height * width
        total = torch.zeros(channels, dtype=torch.float64)
        for rows in row_blocks(len(activations), _IMAGES_AT_ONCE):
            total += activations.h(step, rows).double().sum((0, 2, 3))
        mean = total / count
        squares = torch.zeros((), dtype=torch.float64)
        for rows in row_blocks(len(activations), _IMAGES_AT_ONCE):
            squares += ((activations.h(step, rows).double() - mean[:, None, None]) ** 2).sum()
        if not bool(torch.isfinite(squares)):
            raise InvalidBenchmarkError(f"activations at timestep {t} hold NaN or infinity")
        scale = (squares / (count * channels)).sqrt()
        means.append(mean)
        scales.append(scale if scale > 0 else torch.ones_like(scale))
    timesteps = tuple(int(t) for t in activations.timesteps)
    return ActivationStatistics(timesteps, torch.stack(means).float(), torch.stack(scales).float())


class ActivationSampler:
    """Draws batches of normalised vectors: uniform over timesteps, images and positions."""

    def __init__(self, activations: TrajectoryStore, statistics: ActivationStatistics) -> None:
        self._activations, self._statistics = activations, statistics
        steps = range(len(activations.timesteps))
        per_step = len(activations) * activations.h(0, slice(0, 1)).numel() * 4
        fits = per_step * len(steps) <= _IN_MEMORY
        self._kept = [activations.h(step).clone() for step in steps] if fits else None

    def _maps(self, step: int, images: Tensor) -> Tensor:
        """[m, C, h, w] of these images."""
        if self._kept is None:
            return self._activations.h(step, images)
        return self._kept[step][images]

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, C] float32; depends on the generator's state alone.

        Raises InputError if `count` is not a multiple of the vectors taken from one map.
        """
        n = len(self._activations)
        _, channels, height, width = self._activations.h(0, slice(0, 1)).shape
        positions = height * width
        per_map = min(POSITIONS_PER_MAP, positions)
        if count % per_map:
            raise InputError(f"batches must be multiples of {per_map}, got {count}")
        maps = count // per_map
        steps = torch.randint(len(self._activations.timesteps), (maps,), generator=generator)
        images = torch.randint(n, (maps,), generator=generator)
        places = torch.rand(maps, positions, generator=generator).argsort(1)[:, :per_map]
        batch = torch.empty(maps, per_map, channels)
        for step in steps.unique().tolist():
            rows = (steps == step).nonzero().flatten()
            chosen = self._maps(step, images[rows]).flatten(2)  # [rows, C, positions]
            index = places[rows, None, :].expand(-1, channels, -1)
            vectors = chosen.gather(2, index).transpose(1, 2)
            mean, scale = self._statistics.mean[step], self._statistics.scale[step]
            batch[rows] = (vectors - mean) / scale
        return batch.flatten(0, 1)


def fit_h_space_sae(
    activations: TrajectoryStore,
    config: SaeConfig,
    training: SaeTraining,
    generator: torch.Generator,
    *,
    workspace: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> HSpaceSae:
    """Normalise, train and freeze. Choice: one vector a position of h, at every visited timestep.

    Of h of the training images (a `TrajectoryStore`); `config.d_in` must be the channels of h, else
    InputError. Other arguments and errors as `train_sae`; InvalidBenchmarkError, too, where
    activations are not finite.
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
            device=device,
        )
    mean, scale = statistics.mean.to(device), statistics.scale.to(device)
    return HSpaceSae(sae, statistics.timesteps, mean, scale)
