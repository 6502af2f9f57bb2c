"""What the benchmark relies upon in every kind of dictionary, ours and yours."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from casl_bench.conformance import RuleBook, require, require_equal, require_lower_snake
from casl_bench.core.errors import InputError
from casl_bench.models.random_numbers import generator
from casl_bench.sae.dictionary import (
    Dictionary,
    FactorPairs,
    Needs,
    Rectified,
    SaeConfig,
    SaeInfo,
    SaeTraining,
)
from casl_bench.sae.sae import HSpaceSae
from casl_bench.sae.training import FitData, activation_statistics

D_IN, D_SAE, K = 12, 32, 4
IMAGES, FACTORS = 24, 3
TIMESTEPS = (0, 100, 400)


class PlantedActivations:
    """Maps [n, 12, 2, 2] at three timesteps: three known factors along directions, over noise."""

    timesteps: tuple[int, ...] = TIMESTEPS

    def __init__(self) -> None:
        rng = generator(0, "planted activations")
        self.directions = torch.linalg.qr(torch.randn(D_IN, FACTORS, generator=rng))[0].T
        self.labels = torch.rand(IMAGES, FACTORS, generator=rng) < 0.5
        self._noise = 0.1 * torch.randn(len(TIMESTEPS), IMAGES, 4, D_IN, generator=rng)

    def rows(self, step: int, labels: Tensor) -> Tensor:
        """[n, 4, 12]: vectors with these factors."""
        found: Tensor = (labels.float() @ self.directions)[:, None] + self._noise[step]
        return found

    def __len__(self) -> int:
        return IMAGES

    def h(self, step: int, rows: slice | Tensor | None = None) -> Tensor:
        """[m, 12, 2, 2]."""
        maps = self.rows(step, self.labels).transpose(1, 2).reshape(IMAGES, D_IN, 2, 2)
        return maps if rows is None else maps[rows]

    def pairs(self) -> FactorPairs:
        """Every image with each factor off and on, at the first timestep."""
        off: list[Tensor] = []
        on: list[Tensor] = []
        which = []
        for a in range(FACTORS):
            for value, side in ((False, off), (True, on)):
                labels = self.labels.clone()
                labels[:, a] = value
                side.append(self.rows(0, labels))
            which.append(torch.full((IMAGES,), a))
        return FactorPairs(torch.cat(which), torch.cat(off), torch.cat(on))


class SaeTrial:
    """A kind of dictionary fitted on planted activations."""

    def __init__(self, kind: type[Dictionary]) -> None:
        self.kind, self.info = kind, kind.info
        self.store = PlantedActivations()
        self.rows = self.store.h(1).flatten(2).transpose(1, 2).flatten(0, 1)

    def config(self) -> SaeConfig:
        """Small."""
        return self.kind.config_class(d_in=D_IN, d_sae=D_SAE, k=K)

    def fit(self, needs: Needs | None = None, steps: int = 20) -> Dictionary:
        """A new fit, granted what the kind declares."""
        needs = self.info.needs if needs is None else needs
        statistics = activation_statistics(self.store)
        rng = generator(0, "conformance")
        data = FitData(
            self.store,
            statistics,
            rng,
            SaeTraining(steps=steps, batch=64, dead_after=500, aux_k=4),
            labels=self.store.labels if needs == "labels" else None,
            make_pairs=self.store.pairs if needs == "pairs" else None,
        )
        sae = self.kind(self.config(), rng)
        sae.fit(data)
        return sae.eval().requires_grad_(False)

    @cached_property
    def sae(self) -> Dictionary:
        """The fit that most rules look at."""
        return self.fit()


SAE_RULES: RuleBook[SaeTrial] = RuleBook()


def sae_checks(kind: type[Dictionary]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every check of a kind of dictionary.

    Yields:
        (readable name, callable that raises `CheckFailed`, or what the dictionary raised).
    """
    yield from SAE_RULES.checks(SaeTrial(kind))


@SAE_RULES.rule
def check_info(trial: SaeTrial) -> None:
    """Its info is complete."""
    info = trial.info
    require(isinstance(info, SaeInfo), f"info is a {type(info).__name__}, not a SaeInfo")
    require_lower_snake("name", info.name)
    require(type(info.version) is int and info.version >= 1, f"version is {info.version!r}")
    require(bool(info.title.strip()), "title is empty")
    require(bool(info.source.strip()), 'source is empty: name the paper, or "control"')
    require(info.needs in get_args(Needs), f"needs '{info.needs}' is none of {get_args(Needs)}")
    require(info.control or info.needs != "pairs", "pairs of known factors are for controls only")


@SAE_RULES.rule
def check_settings(trial: SaeTrial) -> None:
    """Its settings survive JSON."""
    config = trial.config()
    again = type(config).model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    require(again == config, f"settings {config} come back from JSON as {again}")


@SAE_RULES.rule
def check_shapes(trial: SaeTrial) -> None:
    """It encodes and decodes vectors, and has its directions."""
    sae = trial.sae
    z = sae.encode(trial.rows)
    expected = (len(trial.rows), sae.d_sae)
    require(tuple(z.shape) == expected, f"encode gives {list(z.shape)}, not {list(expected)}")
    h_hat = sae.decode(z)
    require(h_hat.shape == trial.rows.shape, f"decode gives {list(h_hat.shape)}")
    require(tuple(sae.W_dec.shape) == (sae.d_sae, D_IN), f"W_dec is {list(sae.W_dec.shape)}")
    require(bool(torch.isfinite(z).all() and torch.isfinite(h_hat).all()), "codes are not finite")


@SAE_RULES.rule
def check_sign(trial: SaeTrial) -> None:
    """Codes are not negative unless it says so."""
    least = float(trial.sae.encode(trial.rows).min())
    require(trial.info.signed or least >= 0, f"a code is {least:.3g}, and info is not signed")


@SAE_RULES.rule
def check_linear_decoder(trial: SaeTrial) -> None:
    """What a latent adds is its direction: the decoder is linear in the code."""
    sae = trial.sae
    z = sae.encode(trial.rows[:4])
    moved = sae.decode(z + 2 * torch.eye(sae.d_sae)[:1]) - sae.decode(z)
    gap = float((moved - 2 * sae.W_dec[0]).abs().max())
    require(gap < 1e-4, f"raising latent 0 by 2 misses its direction by {gap:.3g}")


@SAE_RULES.rule
def check_batches(trial: SaeTrial) -> None:
    """A vector's code does not depend on its batch."""
    together = trial.sae.encode(trial.rows)
    gap = float((trial.sae.encode(trial.rows[:5]) - together[:5]).abs().max())
    require(gap < 1e-5, f"codes of five vectors alone and among others differ by {gap:.3g}")


@SAE_RULES.rule
def check_repeatable(trial: SaeTrial) -> None:
    """The same data and seed give the same dictionary, and global random state is left alone."""
    before = torch.random.get_rng_state()
    again = trial.fit()
    require(torch.equal(before, torch.random.get_rng_state()), "a fit consumes global random state")
    for name, value in trial.sae.state_dict().items():
        require_equal(again.state_dict()[name], value, f"'{name}' of two fits")


@SAE_RULES.rule
def check_files(trial: SaeTrial) -> None:
    """It comes back from its files."""
    statistics = activation_statistics(trial.store)
    sae = HSpaceSae(trial.sae, TIMESTEPS, statistics.mean, statistics.scale)
    with tempfile.TemporaryDirectory() as folder:
        sae.save(Path(folder))
        again = HSpaceSae.load(Path(folder))
    maps = trial.store.h(1)
    require_equal(again.encode(maps, 100), sae.encode(maps, 100), "codes before and after saving")


@SAE_RULES.rule
def check_needs(trial: SaeTrial) -> None:
    """Without what it needs it refuses to be fitted, and with less it needs no more."""
    if trial.info.needs == "none":
        return
    try:
        trial.fit(needs="none")
    except InputError:
        return
    require(False, f"it declares needs='{trial.info.needs}', but is fitted without")


@SAE_RULES.rule
def check_rectified(trial: SaeTrial) -> None:
    """As methods see it, it reconstructs the same and no code is negative."""
    if not trial.info.signed:
        return
    split, rows = Rectified(trial.sae), trial.rows
    z = split.encode(rows)
    require(float(z.min()) >= 0, "a split code is negative")
    whole = trial.sae.decode(trial.sae.encode(rows))
    require(bool(torch.allclose(split.decode(z), whole, atol=1e-5)), "reconstructions differ")
