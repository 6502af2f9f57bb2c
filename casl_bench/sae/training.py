"""Sparse autoencoders and their training; killed at any moment, it goes on to the same bits.

Loss: mean squared error + the kind's sparsity term + aux_weight * auxk, where auxk is the error
left when latents that have long been silent reconstruct the residual.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_json, write_bytes
from casl_bench.models.micro_batch import row_blocks
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.weights import own_memory
from casl_bench.sae.dictionary import (
    Activations,
    Dictionary,
    FactorPairs,
    Progress,
    Rectified,
    SaeConfig,
    SaeTraining,
    dictionary_class,
)
from casl_bench.sae.sae import ActivationMaps, HSpaceSae

Sampler = Callable[[int, torch.Generator], Tensor]
"""(count, generator) -> [count, d_in] normalised vectors, sampled with that generator alone."""

_MEDIAN_VECTORS = 8192
_MEDIAN_ROUNDS = 50
# Vectors taken from one map at a time: reading a map costs the same for one of its positions as
# for all, and too many from one map would make the vectors of a batch alike.
POSITIONS_PER_MAP = 16
_IMAGES_AT_ONCE = 64
_IN_MEMORY = 256 * 10**6
"""Activations of at most so many bytes are read once; larger ones stay on disk."""


class SparseAutoencoder(Dictionary):
    """Base of dictionaries trained by gradient steps: z = act((h - b_dec) W_enc + b_enc).

    A subclass gives `activate`, and its sparsity term in `penalty`. Rows of W_dec are kept at unit
    norm, and the encoder starts as the decoder's transpose.
    """

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] pre-activations → z, >= 0; in evaluation mode row by row."""
        raise NotImplementedError

    def penalty(self, pre: Tensor, z: Tensor) -> Tensor:
        """The sparsity term of a batch, [m, d_sae] each; none by default."""
        return torch.zeros(())

    def reconstruction_loss(self, h: Tensor, z: Tensor) -> Tensor:
        """Mean squared error of what z [m, d_sae] decodes, against h [m, d_in]."""
        return ((self.decode(z) - h) ** 2).mean()

    def extra_loss(self, activations: Activations, share: float) -> Tensor:
        """A further term at this share of the steps in [0, 1); none by default."""
        return torch.zeros(())

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → z [m, d_sae], >= 0."""
        return self.activate(self.pre_activations(h))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[m, d_in] → z [m, d_sae] >= 0, h_hat [m, d_in] and pre-activations [m, d_sae]."""
        pre = self.pre_activations(h)
        z = self.activate(pre)
        return z, self.decode(z), pre

    def fit(self, activations: Activations) -> None:
        """Train, or go on from the workspace's checkpoint; see `train_sae`."""
        train_sae(
            self,
            activations.training,
            activations.sample,
            activations.generator,
            workspace=activations.workspace,
            data_hash=activations.data_hash,
            progress=activations.progress,
            extra_loss=lambda share: self.extra_loss(activations, share),
        )

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale every row of W_dec to norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Take from W_dec's gradient the part along each row, which normalising would undo."""
        gradient = self.W_dec.grad
        if gradient is not None:
            gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec


def save_checkpoint(
    path: Path,
    key: str,
    sae: Dictionary,
    optimiser: torch.optim.Adam,
    silent_for: Tensor,
    generator: torch.Generator,
    done: int,
) -> None:
    """Write the state after `done` steps of the training identified by `key`."""
    tensors = {"silent_for": silent_for, "generator": generator.get_state(), **sae.state_dict()}
    for name, parameter in sae.named_parameters():
        for slot, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{slot}.{name}"] = value
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = {"key": key, "done": str(done), "sha256": _hash_of(contiguous, done)}
    write_bytes(path, save(contiguous, metadata=metadata))


def load_checkpoint(
    path: Path,
    key: str,
    sae: Dictionary,
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
        for name, value in sae.state_dict().items():
            value.copy_(tensors[name])
        for name, parameter in sae.named_parameters():
            slots = ("step", "exp_avg", "exp_avg_sq")
            if f"adam.step.{name}" in tensors:
                state = {s: tensors[f"adam.{s}.{name}"] for s in slots}
                # The count of steps stays on the CPU, as Adam has it.
                moved = {s: t if s == "step" else t.to(parameter) for s, t in state.items()}
                optimiser.state[parameter] = moved
    return done


def _hash_of(tensors: dict[str, Tensor], done: int) -> str:
    return hash_json([hash_tensors(tensors), done])


def _key(
    sae: SparseAutoencoder, training: SaeTraining, data_hash: str, generator: torch.Generator
) -> str:
    """What tells a training from another one's checkpoint: once a fit the first weights are read.

    They go to the CPU for it, if they are on a GPU.
    """
    start = {**sae.state_dict(), "generator": generator.get_state()}
    settings = [sae.config.model_dump(mode="json"), training.model_dump(mode="json")]
    return hash_json([sae.info.name, *settings, data_hash, hash_tensors(start)])


def train_sae(
    sae: SparseAutoencoder,
    training: SaeTraining,
    sampler: Sampler,
    generator: torch.Generator,
    *,
    workspace: Path | None = None,
    data_hash: str = "",
    progress: Progress | None = None,
    extra_loss: Callable[[float], Tensor] | None = None,
) -> None:
    """Train from where it is, or go on from the workspace's checkpoint; in evaluation mode after.

    Batches come from the generator; the global random state stays untouched. A checkpoint of
    another kind, other settings, data (`data_hash`) or seed is not used; without a workspace none
    is kept. Raises InvalidBenchmarkError if the loss stops being finite, UsageError where the
    workspace cannot be written.
    """
    silent_for = torch.zeros(sae.d_sae, dtype=torch.int64, device=sae.W_dec.device)
    optimiser = torch.optim.Adam(sae.parameters(), eps=1e-8)
    path, key, done = None, "", 0
    if workspace is not None:
        path = workspace / "sae_checkpoint.safetensors"
        key = _key(sae, training, data_hash, generator)
        done = load_checkpoint(path, key, sae, optimiser, silent_for, generator)
    if done == 0:
        start = sampler(max(training.batch, _MEDIAN_VECTORS), generator)
        with torch.no_grad():
            centre = geometric_median(start) if training.pre_bias != "mean" else start.mean(0)
            sae.b_dec.copy_(centre)
    sae.train()
    for step in range(done, training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.rate(step)
        h = sampler(training.batch, generator)
        loss = _loss(sae, h, training, silent_for)
        if extra_loss is not None:
            loss = loss + extra_loss(step / training.steps)
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
    sae.eval()


def _loss(sae: SparseAutoencoder, h: Tensor, training: SaeTraining, silent_for: Tensor) -> Tensor:
    """The loss of one batch; counts the silence of each latent in place."""
    pre = sae.pre_activations(h)
    z = sae.activate(pre)
    dead = silent_for >= training.dead_after
    silent_for += len(h)
    silent_for[z.detach().amax(0) > 0] = 0
    loss = sae.reconstruction_loss(h, z) + sae.penalty(pre, z)
    if training.aux_k and bool(dead.any()):
        residual = (h - sae.decode(z)).detach()
        loss = loss + training.aux_weight * auxk_loss(sae, residual, pre, dead, training.aux_k)
    return loss


def auxk_loss(sae: Dictionary, residual: Tensor, pre: Tensor, dead: Tensor, aux_k: int) -> Tensor:
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


def activation_statistics(activations: ActivationMaps) -> ActivationStatistics:
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

    def __init__(self, activations: ActivationMaps, statistics: ActivationStatistics) -> None:
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


@dataclass
class FitData:
    """`Activations` of a store: what a dictionary's `fit` is given.

    Attributes:
        store: activations of the training images.
        statistics: that they are normalised by.
        labels: [n, A] bool of these images, granted to dictionaries that need labels.
        make_pairs: gives the pairs granted to controls that need them, unnormalised; called once.
        on_step: told the steps done, and of how many.
        device: where the dictionary is, and what it is given; random numbers are the CPU's.
    """

    store: ActivationMaps
    statistics: ActivationStatistics
    generator: torch.Generator
    training: SaeTraining
    workspace: Path | None = None
    labels: Tensor | None = None
    make_pairs: Callable[[], FactorPairs] | None = None
    on_step: Progress | None = None
    device: torch.device | str = "cpu"
    data_hash: str = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the sampler."""
        # Equal statistics to the last bit stand for equal data: enough to tell checkpoints apart.
        self.data_hash = hash_tensors(
            {"mean": self.statistics.mean, "scale": self.statistics.scale}
        )
        self._sampler = ActivationSampler(self.store, self.statistics)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, C] normalised vectors."""
        return self._sampler(count, generator).to(self.device)

    def batches(self) -> Iterator[Tensor]:
        """All normalised vectors, a block of images at a time."""
        for step in range(len(self.store.timesteps)):
            for rows in row_blocks(len(self.store), _IMAGES_AT_ONCE):
                yield self._normalised(self.store.h(step, rows), step).flatten(0, 1)

    def labelled(self, images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Maps [n, P, C] of random images and timesteps with labels [n, A]."""
        if self.labels is None:
            raise InputError("this data has no labels, which the dictionary asks for")
        steps = torch.randint(len(self.store.timesteps), (images,), generator=generator)
        rows = torch.randint(len(self.store), (images,), generator=generator)
        maps = [
            self._normalised(self.store.h(int(s), slice(int(r), int(r) + 1)), int(s))
            for s, r in zip(steps, rows, strict=True)
        ]
        return torch.cat(maps), self.labels[rows].to(self.device)

    def pairs(self) -> FactorPairs:
        """The pairs, of whatever timesteps they were made at, normalised."""
        if self.make_pairs is None:
            raise InputError("no pairs of known factors can be had, which the dictionary asks for")
        pairs = self.make_pairs()
        return FactorPairs(*(x.to(self.device) for x in (pairs.attribute, pairs.off, pairs.on)))

    def progress(self, done: int, total: int) -> None:
        """Pass on the steps done."""
        if self.on_step is not None:
            self.on_step(done, total)

    def _normalised(self, h: Tensor, step: int) -> Tensor:
        mean, scale = self.statistics.mean[step], self.statistics.scale[step]
        return ((h.flatten(2).transpose(1, 2) - mean) / scale).to(self.device)


def fit_dictionary(name: str, config: SaeConfig, data: FitData) -> HSpaceSae:
    """Fit a kind of dictionary and freeze it. Choice: one vector per position, all timesteps.

    Raises InputError where `config.d_in` is not the channels of the activations or the data lacks
    what the kind needs, InvalidBenchmarkError where activations or the loss are not finite.
    """
    channels = data.statistics.mean.shape[1]
    if channels != config.d_in:
        raise InputError(f"h has {channels} channels, the SAE {config.d_in}")
    sae = dictionary_class(name)(config, data.generator).to(data.device)
    with torch.enable_grad():
        sae.fit(data)
    mean, scale = data.statistics.mean.to(data.device), data.statistics.scale.to(data.device)
    return HSpaceSae(sae, data.statistics.timesteps, mean, scale)


def non_negative(sae: HSpaceSae) -> HSpaceSae:
    """The same dictionary for editing methods, which rank latents by how active they are.

    A signed one comes back with every latent split into its positive and negative part.
    """
    if not sae.sae.info.signed:
        return sae
    return HSpaceSae(Rectified(sae.sae), sae.timesteps, sae.mean, sae.scale)
