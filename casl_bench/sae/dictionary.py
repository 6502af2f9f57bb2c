"""A dictionary of activations: what it is, what it is fitted on, and the registry of all kinds.

A dictionary writes a normalised vector of activations as a few of its directions: z = encode(h),
h_hat = decode(z). Sparse autoencoders are the usual kind; raw channels and PCA are dictionaries,
too, and stand beside them as controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.registry import Registry, discover

Progress = Callable[[int, int], None]
"""(steps done, all steps)."""

Needs = Literal["none", "labels", "pairs"]


class SaeConfig(BaseModel):
    """Size and sparsity of a dictionary. JSON values, frozen, unknown fields refused.

    A kind with more settings subclasses it; all of them are part of the cache key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    d_in: int = Field(gt=0, le=65_536)  # length of an input vector
    # Number of latents; a kind whose number follows from the data sets it in `fit`. Four times the
    # length of an input, and k: docs/studies/sae_sweep.md
    d_sae: int = Field(default_factory=lambda known: 4 * known["d_in"], gt=0, le=1 << 22)
    # Active latents per vector: at most (TopK) or on average (ReLU, JumpReLU)
    k: int = Field(default=16, gt=0)

    @model_validator(mode="after")
    def _k_fits(self) -> SaeConfig:
        if self.k > self.d_sae:
            raise ValueError(f"k = {self.k} is larger than d_sae = {self.d_sae}")
        return self


class SaeTraining(BaseModel):
    """How a dictionary that takes gradient steps is trained, whatever its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Optimiser steps; the default takes about a minute on two cores
    steps: int = Field(default=1500, gt=0)
    batch: int = Field(default=1024, gt=0)  # vectors per step
    learning_rate: float = Field(default=2e-3, gt=0)  # of Adam, at its height
    # Share of the steps over which the rate climbs from 0
    warm_up: float = Field(default=0.05, ge=0, le=1)
    # Share of the steps, at the end, over which it falls to 0
    decay: float = Field(default=0.3, ge=0, le=1)
    # Silent latents that reconstruct the residual; 0 turns revival off
    aux_k: int = Field(default=64, ge=0)
    aux_weight: float = Field(default=1 / 32, ge=0)  # of that term
    # Vectors without firing after which a latent counts as dead
    dead_after: int = Field(default=100_000, gt=0)
    pre_bias: Literal["geometric_median", "mean"] = "geometric_median"  # what b_dec starts at
    checkpoint_every: int = Field(default=250, gt=0)  # steps between checkpoints

    def rate(self, step: int) -> float:
        """Learning rate at a step, counted from 0."""
        up = (step + 1) / max(1.0, self.warm_up * self.steps)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, up, down)


@dataclass(frozen=True)
class SaeInfo:
    """What a kind of dictionary declares of itself."""

    name: str  # lower_snake, as on the command line
    title: str  # as in a table
    source: str  # paper and section or code it follows, or "control"
    version: int  # raise it whenever its numbers may change
    # What `fit` asks for beside activations: attribute labels of the training images, or pairs of
    # them that differ in one factor (controls only)
    needs: Needs = "none"
    control: bool = False  # whether it is a floor or a ceiling rather than a rival
    signed: bool = False  # whether codes may be negative; only a sparse code is >= 0
    seeded: bool = True  # whether another seed gives another dictionary
    # Which of its sizes make another dictionary; the rest follows from the data
    sized_by: tuple[Literal["d_sae", "k"], ...] = ("d_sae", "k")


@dataclass(frozen=True)
class FactorPairs:
    """Vectors of training images and of the same images with one factor flipped.

    Attributes:
        attribute: [m] int64, which factor was flipped.
        off: [m, P, C] normalised vectors of the image without the attribute, one per position.
        on: the same of the image with it.
    """

    attribute: Tensor
    off: Tensor
    on: Tensor


class Activations(Protocol):
    """What a dictionary is fitted on: normalised vectors (mean 0, root mean square 1)."""

    generator: torch.Generator  # all random numbers of a fit; global state stays untouched
    training: SaeTraining
    workspace: Path | None  # scratch folder that survives an interruption
    data_hash: str  # of the data, to tell checkpoints apart

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, d_in] float32, uniform over timesteps, images and positions."""
        ...

    def batches(self) -> Iterator[Tensor]:
        """All vectors, once, in blocks [m, d_in]."""
        ...

    def labelled(self, images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Whole maps [n, P, d_in] of random images and timesteps, and their labels [n, A] bool.

        InputError unless the dictionary declares `needs="labels"`.
        """
        ...

    def pairs(self) -> FactorPairs:
        """Pairs that differ in one factor; InputError unless declared by `needs="pairs"`."""
        ...

    def progress(self, done: int, total: int) -> None:
        """Report steps done."""
        ...


class Dictionary(nn.Module):
    """Base of every dictionary: subclass it, give `encode` and `fit`, and register it.

    Its state is its parameters and buffers (stored as safetensors). A row of a code depends on its
    own vector alone once the module is in evaluation mode.

    Attributes:
        W_enc: [d_in, d_sae].
        b_enc: [d_sae].
        W_dec: [d_sae, d_in], the decoder's directions.
        b_dec: [d_in], subtracted before encoding, too.
    """

    info: ClassVar[SaeInfo]
    config_class: ClassVar[type[SaeConfig]] = SaeConfig

    def __init__(self, config: SaeConfig, generator: torch.Generator | None = None) -> None:
        """Random unit directions with the encoder as their transpose; zeros without a generator."""
        super().__init__()
        self.config = config
        directions = torch.zeros(config.d_sae, config.d_in)
        if generator is not None:
            directions = torch.randn(config.d_sae, config.d_in, generator=generator)
            directions /= directions.norm(dim=1, keepdim=True)
        self.W_enc = nn.Parameter(directions.T.clone().contiguous())
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.W_dec = nn.Parameter(directions)
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))

    @property
    def d_in(self) -> int:
        """Length of a vector."""
        return self.config.d_in

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.config.d_sae

    def fit(self, activations: Activations) -> None:
        """Learn from activations; random numbers from `activations.generator` alone."""
        raise NotImplementedError

    def pre_activations(self, h: Tensor) -> Tensor:
        """[m, d_in] → [m, d_sae]: (h - b_dec) W_enc + b_enc."""
        if h.ndim != 2 or h.shape[1] != self.config.d_in:
            raise InputError(f"expected vectors [m, {self.config.d_in}], got {list(h.shape)}")
        return torch.addmm(self.b_enc, h - self.b_dec, self.W_enc)

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → z [m, d_sae], >= 0 unless the info says `signed`."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Decode z [m, d_sae] → h_hat [m, d_in] = z W_dec + b_dec."""
        return torch.addmm(self.b_dec, z, self.W_dec)


class Rectified(Dictionary):
    """A signed dictionary with twice as many latents, none negative: (z, 0) or (0, -z).

    What editing methods are given in place of a signed one, as they rank latents by activity.
    """

    def __init__(self, signed: Dictionary) -> None:
        nn.Module.__init__(self)
        self.config = signed.config.model_copy(update={"d_sae": 2 * signed.d_sae})
        self.info = signed.info  # type: ignore[misc]  # of this object alone
        self.signed = signed
        self.W_dec = nn.Parameter(torch.cat([signed.W_dec, -signed.W_dec]).detach())
        self.b_dec = signed.b_dec

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → [m, 2 d_sae] >= 0."""
        z = self.signed.encode(h)
        return torch.cat([z.clamp_min(0), (-z).clamp_min(0)], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """[m, 2 d_sae] → [m, d_in]."""
        half = self.signed.d_sae
        return self.signed.decode(z[:, :half] - z[:, half:])


SAES: Registry[Dictionary] = Registry("dictionary", entry_point_group="casl_bench.saes")

D = TypeVar("D", bound=type[Dictionary])


def register_sae(cls: D) -> D:
    """Class decorator: make a kind of dictionary known under `cls.info.name`.

    The class is called with its config and, to be fitted, a generator. Raises UsageError where it
    lacks a part of the interface.
    """
    for part in ("info", "encode", "fit", "config_class"):
        if not hasattr(cls, part):
            raise UsageError(f"dictionary class '{cls.__name__}' has no '{part}'", hint="see docs")
    SAES.register(cls.info.name, cls)
    return cls


def discover_dictionaries() -> None:
    """Import the kinds that this package brings."""
    discover("casl_bench.sae.dictionaries", SAES)


def dictionary_class(name: str) -> type[Dictionary]:
    """The class of a name. Raises UsageError with the nearest name where there is none."""
    if name not in SAES.registered:
        discover_dictionaries()
    found = SAES.factory(name)
    if not (isinstance(found, type) and issubclass(found, Dictionary)):
        raise InvalidBenchmarkError(f"'{name}' is registered, but is no subclass of Dictionary")
    return found


def is_folder(name: str) -> bool:
    """Whether a name of `--sae` means a folder or file rather than a registered kind."""
    looks_like = "/" in name or "\\" in name or name.endswith(".safetensors")
    return looks_like and name not in SAES  # an installed package's kind is package/name


def needs_of(name: str) -> Needs:
    """What a kind was given beside activations; a folder of another's counts as nothing."""
    return "none" if is_folder(name) else dictionary_class(name).info.needs


def make_config(name: str, d_in: int, **settings: object) -> SaeConfig:
    """A kind's settings: its defaults with those of these over them that are not None."""
    kind = dictionary_class(name).config_class
    fields = {key: value for key, value in settings.items() if value is not None}
    return kind.model_validate({"d_in": d_in, **fields})
