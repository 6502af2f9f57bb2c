"""What all cells of one data set share: images, inversions, trajectories, the SAE.

Made on first use, kept in the cache under a key of everything that determines them, and taken from
there by every run that needs the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from casl_bench.cache.code_hash import INVERSION_CODE, SAE_CODE, code_hash, environment, source_hash
from casl_bench.cache.store import ABOUT, Cache, CacheKey, Entry
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.diffusion.inversion import (
    Inversions,
    forget_parts,
    invert_in_parts,
    read_inversions,
    write_inversions,
)
from casl_bench.diffusion.trajectories import (
    TrajectoryStore,
    check_disk,
    disk_budget,
    store_bytes,
    trajectory_bytes,
)
from casl_bench.domains.dataset import Concept, ImageBatch, Split, SupportsOracle
from casl_bench.domains.domain import Domain
from casl_bench.models.micro_batch import one_thread
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.models.random_numbers import generator
from casl_bench.runs.plan import parts_of_domain
from casl_bench.runs.progress import Progress
from casl_bench.runs.suites import RunConfig
from casl_bench.sae.dictionary import (
    FactorPairs,
    SaeConfig,
    SaeTraining,
    dictionary_class,
    is_folder,
    make_config,
)
from casl_bench.sae.foreign import load_folder
from casl_bench.sae.sae import ActivationMaps, HSpaceSae
from casl_bench.sae.sites import MID, OfRange, SiteMaps, site_shape
from casl_bench.sae.training import FitData, activation_statistics, fit_dictionary, non_negative

INVERSIONS_FILE = "inversions.safetensors"
_KEPT: frozenset[Split] = frozenset({"train", "test"})
"""Splits whose x_t and h are kept at every timestep."""


@dataclass(frozen=True)
class InvertedSplit:
    """The images of a split with their inversions; x_t and h at every timestep where kept."""

    batch: ImageBatch
    inversions: Inversions
    trajectories: TrajectoryStore | None


ORACLE_IMAGES, ORACLE_STEPS = 16, 4
"""Training images at most, each flipped in every factor, and timesteps: the oracle's data."""


@dataclass(frozen=True)
class SaeSpec:
    """Which dictionary: a registered kind, or a folder of one that was trained elsewhere.

    `d_sae` and `k` are the kind's defaults where None, `vectors`, how many it is trained on, the
    suite's. `between` are timesteps low <= t < high that it knows; None is all of them.
    """

    name: str
    d_sae: int | None = None
    k: int | None = None
    seed: int = 0
    site: str = MID
    vectors: int | None = None
    between: tuple[int, int] | None = None


@dataclass(frozen=True)
class FlippedImages:
    """Images of a split, each with every known factor flipped in turn, inverted like the others.

    Attributes:
        base: places of the images in their split, the first ones.
        attributes: A names.
        flipped: of A * n images, all of one attribute after another.
    """

    base: range
    attributes: tuple[str, ...]
    flipped: InvertedSplit

    def rows(self, attribute: int) -> slice:
        """Places in `flipped` of the images in which this attribute was flipped."""
        n = len(self.base)
        return slice(attribute * n, (attribute + 1) * n)


class Artifacts:
    """Shared artifacts of one data set in one run; `progress` is shown while one is made."""

    def __init__(self, domain: Domain, config: RunConfig, progress: Progress) -> None:
        self.domain, self.config, self.progress = domain, config, progress
        self.suite = config.suite
        self.cache = Cache(config.cache, lambda line: self.progress.note(line))
        self._entries: dict[CacheKey, Entry] = {}  # held while this object lives
        self._presence: dict[str, Tensor] = {}  # by a split's first image
        self._site_maps: dict[tuple[Split, str, int | None], SiteMaps] = {}

    @cached_property
    def timesteps(self) -> tuple[int, ...]:
        """The walk of inversion and generation."""
        t_max = self.domain.backbone.schedule.num_timesteps - 1
        return power_timesteps(self.suite.num_steps, t_max, self.suite.timestep_power)

    @cached_property
    def train(self) -> InvertedSplit:
        """What methods, SAE and probe learn from."""
        return self._split("train")

    @cached_property
    def validation(self) -> InvertedSplit:
        """What strengths are chosen on."""
        return self._split("validation")

    @cached_property
    def test(self) -> InvertedSplit:
        """What is reported."""
        return self._split("test")

    def concept_split(
        self, split: InvertedSplit, concept: Concept, count: int, *, present: bool = False
    ) -> InvertedSplit:
        """The first `count` images of a split that lack a concept's attribute.

        With `present` those that have it instead, and as many as there are where they are fewer.
        Raises InvalidBenchmarkError if fewer lack it.
        """
        column = self.domain.dataset.card.attributes.index(concept.attribute)
        there = self.presence(split)[:, column]
        places = (there if present else ~there).nonzero().flatten().tolist()
        if not present and len(places) < count:
            raise InvalidBenchmarkError(
                f"only {len(places)} of {len(split.batch)} images lack '{concept.attribute}'",
                hint=f"{count} are needed: raise the suite's pool",
            )
        places = places[:count]
        return InvertedSplit(split.batch.take(places), split.inversions.take(places), None)

    def concept_validation(self, concept: Concept) -> InvertedSplit:
        """The validation images on which a concept's strengths are chosen."""
        return self.concept_split(self.validation, concept, self.suite.validation_images)

    def presence(self, split: InvertedSplit) -> Tensor:
        """[n, A] bool of a split of this object, computed once; see `Domain.presence`."""
        first = split.batch.image_ids[0]
        if first not in self._presence:
            self._presence[first] = self.domain.presence(split.batch)
        return self._presence[first]

    def sae_config(self, spec: SaeSpec) -> SaeConfig:
        """The kind's settings on the channels of a site."""
        channels = site_shape(self.domain.backbone, spec.site)[0]
        return make_config(spec.name, channels, d_sae=spec.d_sae, k=spec.k)

    def split_key(self, split: Split) -> CacheKey:
        """Everything that determines the inversions of a split."""
        card, domain = self.domain.dataset.card, self.domain
        return CacheKey(
            "inversions",
            {
                "stage": 5,
                ABOUT: [card.name, split],
                "dataset": [card.name, card.revision],
                "split": split,
                "count": self.suite.split_sizes[split],
                "trajectories": split in _KEPT,
                "backbone": domain.backbone.weights_hash,
                "timesteps": list(self.timesteps),
                "extrapolate": self.suite.extrapolate,
                "device": self.config.device.split(":")[0],
                "code": [code_hash(INVERSION_CODE), *map(source_hash, parts_of_domain(domain))],
                "environment": {**environment()},
            },
        )

    @property
    def sae_spec(self) -> SaeSpec:
        """The dictionary that this run's methods share."""
        return SaeSpec(self.config.sae, seed=self.config.seed)

    def sae_key(self, spec: SaeSpec | None = None) -> CacheKey:
        """Everything that determines a dictionary, by default the one that methods share."""
        spec = spec or self.sae_spec
        if is_folder(spec.name):
            return CacheKey("sae", {"folder": spec.name})
        kind = dictionary_class(spec.name)
        inputs: list[JsonValue] = [self.split_key("train").hash]
        if kind.info.needs == "pairs":
            inputs.append(self.flipped_key("train", self.oracle_images).hash)
        return CacheKey(
            "sae",
            {
                "stage": 2,
                ABOUT: [self.domain.dataset.card.name, spec.name],
                "activations": inputs,
                "site": spec.site,
                "dictionary": [spec.name, kind.info.version],
                "config": self.sae_config(spec).model_dump(mode="json"),
                "trainer": self._trainer_config(spec).model_dump(mode="json"),
                "between": None if spec.between is None else [*spec.between],
                "seed": spec.seed if kind.info.seeded else 0,
                "code": [code_hash(SAE_CODE), source_hash(kind)],
            },
        )

    def get(self) -> HSpaceSae:
        """The shared SAE (this object is the methods' `SaeProvider`)."""
        return self.sae

    @cached_property
    def sae(self) -> HSpaceSae:
        """The dictionary that methods share; a signed one is split so that no code is negative."""
        return non_negative(self.dictionary(self.sae_spec)).to(self.domain.backbone.device)

    def dictionary(self, spec: SaeSpec) -> HSpaceSae:
        """Trained on activations of the training images at all timesteps, or read from the cache.

        One of a folder is read from there. Raises InputError where this data set lacks labels or
        known factors that the kind needs.
        """
        if is_folder(spec.name):
            return load_folder(Path(spec.name), self.timesteps)
        entry = self._entry(self.sae_key(spec), lambda folder: self._train_sae(folder, spec))
        return HSpaceSae.load(entry.folder)

    def _train_sae(self, folder: Path, spec: SaeSpec) -> None:
        trainer, workspace = self._trainer_config(spec), folder / "training"
        maps = self.activations("train", spec.site)
        if spec.between is not None:
            maps = OfRange(maps, *spec.between)
        needs = dictionary_class(spec.name).info.needs
        statistics = activation_statistics(maps)
        with (
            self.progress.task(
                f"SAE {spec.name}: training", trainer.steps, unit="steps"
            ) as advance,
            self.progress.costs.phase("SAE training"),
        ):
            data = FitData(
                maps,
                statistics,
                # Kinds share their stream, and so their batches: they differ in nothing else.
                generator(spec.seed, "sae"),
                trainer,
                workspace=workspace,
                device=self.domain.backbone.device,
                labels=self.train.batch.attributes if needs == "labels" else None,
                make_pairs=(
                    (lambda: self._oracle_pairs(spec.site, statistics.mean, statistics.scale))
                    if needs == "pairs"
                    else None
                ),
                on_step=lambda done, total: advance(1),
            )
            sae = fit_dictionary(spec.name, self.sae_config(spec), data)
        sae.save(folder)
        shutil.rmtree(workspace, ignore_errors=True)

    def activations(
        self, split: Split, site: str = MID, images: int | None = None
    ) -> ActivationMaps:
        """Activations at a site at every timestep; those of another site than h are computed."""
        store = (self.train if split == "train" else self.test).trajectories
        assert store is not None  # train and test keep them
        if site == MID:
            return store
        key = (split, site, images)
        if key not in self._site_maps:
            self._site_maps[key] = SiteMaps(self.domain.backbone, store, site, images)
        return self._site_maps[key]

    @property
    def oracle_images(self) -> int:
        """How many training images are flipped for the oracle dictionary."""
        return max(2, min(ORACLE_IMAGES, self.suite.train_images // 8))

    def flipped_key(self, split: Split, count: int) -> CacheKey:
        """Everything that determines the inversions of flipped images."""
        return CacheKey("inversions", {**self.split_key(split).inputs, "flipped": count})

    def flipped(self, split: Split, count: int) -> FlippedImages:
        """The first images of a split with every factor flipped in turn, inverted, with h.

        Raises InputError where the data set's factors are unknown.
        """
        dataset = self.domain.dataset
        if not isinstance(dataset, SupportsOracle):
            raise InputError(
                "this data set's factors are unknown: no image of it can be flipped",
                where=dataset.card.name,
            )
        attributes = dataset.card.attributes
        ids = dataset.load(split, count).image_ids
        pixels = torch.cat([dataset.oracle(ids, a) for a in attributes]).contiguous()
        names = tuple(f"{i}+{a}" for a in attributes for i in ids)
        flipped = self._inverted(
            self.flipped_key(split, count),
            ImageBatch(names, pixels, None),
            f"{split}, flipped",
            keep=True,
        )
        return FlippedImages(range(count), attributes, flipped)

    def _oracle_pairs(self, site: str, mean: Tensor, scale: Tensor) -> FactorPairs:
        """Normalised vectors of training images with and without each factor, at some timesteps."""
        pairs = self.flipped("train", self.oracle_images)
        store, n = pairs.flipped.trajectories, len(pairs.base)
        assert store is not None
        labels = self.presence(self.train)[: len(pairs.base)]
        walk = len(self.timesteps)
        steps = sorted({round(i) for i in np.linspace(0, walk - 1, min(walk, ORACLE_STEPS))})
        base = self.activations("train", site)
        flips: ActivationMaps = store
        if site != MID:
            flips = SiteMaps(self.domain.backbone, store, site, steps=steps)
        off, on, which = [], [], []
        for step in steps:
            own, other = (
                (m.h(step, slice(0, k)).flatten(2).transpose(1, 2) - mean[step]) / scale[step]
                for m, k in ((base, n), (flips, len(store)))
            )
            for a in range(len(pairs.attributes)):
                has, flip = labels[:, a, None, None], other[pairs.rows(a)]
                on.append(torch.where(has, own, flip))
                off.append(torch.where(has, flip, own))
                which.append(torch.full((n,), a))
        return FactorPairs(torch.cat(which), torch.cat(off), torch.cat(on))

    @property
    def passes_per_image(self) -> int:
        """U-Net passes of inversion and the reconstruction."""
        return 2 * len(self.timesteps)

    def _trainer_config(self, spec: SaeSpec) -> SaeTraining:
        training = SaeTraining(steps=self.suite.sae_steps)
        if spec.vectors is None:
            return training
        return SaeTraining(steps=max(1, spec.vectors // training.batch))

    def _entry(self, key: CacheKey, make: Callable[[Path], None]) -> Entry:
        if key not in self._entries:
            with one_thread():
                self._entries[key] = self.cache.get_or_make(key, make)
        return self._entries[key]

    def seconds(self, key: CacheKey) -> float | None:
        """Wall time of making an entry, whichever run made it; None where it was interrupted."""
        entry = self._entries.get(key) or self.cache.find(key)
        return None if entry is None else entry.sidecar.seconds

    def _split(self, split: Split) -> InvertedSplit:
        batch = self.domain.dataset.load(split, self.suite.split_sizes[split])
        batch = replace(batch, pixels=batch.pixels.contiguous())
        return self._inverted(self.split_key(split), batch, split, keep=split in _KEPT)

    def _inverted(
        self, key: CacheKey, batch: ImageBatch, label: str, *, keep: bool
    ) -> InvertedSplit:
        entry = self._entry(key, lambda folder: self._invert(folder, label, batch, keep))
        inversions = read_inversions(
            entry.folder / INVERSIONS_FILE, batch.image_ids, self.timesteps, batch.pixels
        )
        store = TrajectoryStore.open(entry.folder, entry.check_large) if keep else None
        return InvertedSplit(batch, inversions, store)

    def _invert(self, folder: Path, label: str, batch: ImageBatch, keep: bool) -> None:
        store = None
        if keep:
            backbone = self.domain.backbone
            others = trajectory_bytes(self.cache.root / "inversions") - trajectory_bytes(folder)
            store = TrajectoryStore.create(
                folder, batch.image_ids, self.timesteps, batch.pixels.shape[1:], backbone.h_shape,
                max_disk_bytes=disk_budget() - others,
            )  # fmt: skip
        work = float(self.passes_per_image * len(batch))
        with (
            self.progress.task(f"{label}: inversion", len(batch), work, "images") as advance,
            self.progress.costs.phase("inversion"),
        ):
            inversions = invert_in_parts(
                self.domain.backbone,
                batch,
                self.timesteps,
                self.suite.extrapolate,
                folder=folder,
                store=store,
                size=self.config.batch_size,
                advance=advance,
            )
        if store is not None:
            store.finish()
        write_inversions(folder / INVERSIONS_FILE, inversions)
        forget_parts(folder)

    def trajectory_bytes_to_come(self) -> int:
        """What the stores of this data set will still take on disk."""
        backbone = self.domain.backbone
        image_shape = (3, backbone.image_size, backbone.image_size)
        total = 0
        for split in sorted(_KEPT):
            count = self.suite.split_sizes[split]
            whole = store_bytes(count, len(self.timesteps), image_shape, backbone.h_shape)
            key = self.split_key(split)
            if not self.cache.folder(key).exists():
                total += max(0, whole - trajectory_bytes(self.cache.work_folder(key)))
        return total


def check_room(config: RunConfig, artifacts: Iterable[Artifacts]) -> None:
    """Refuse, with a UsageError, a run that the disk or its budget has no room for."""
    there = trajectory_bytes(config.cache / "inversions")
    check_disk(
        sum(a.trajectory_bytes_to_come() for a in artifacts), config.cache, disk_budget() - there
    )
