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

from torch import Tensor

from casl_bench.cache.code_hash import INVERSION_CODE, SAE_CODE, code_hash, environment, source_hash
from casl_bench.cache.store import ABOUT, Cache, CacheKey, Entry
from casl_bench.core.errors import InvalidBenchmarkError
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
from casl_bench.domains.dataset import Concept, ImageBatch, Split
from casl_bench.domains.domain import Domain
from casl_bench.models.micro_batch import one_thread
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.models.random_numbers import generator
from casl_bench.runs.plan import parts_of_domain
from casl_bench.runs.progress import Progress
from casl_bench.runs.suites import RunConfig
from casl_bench.sae.sae import HSpaceSae, SaeConfig
from casl_bench.sae.training import SaeTraining, fit_h_space_sae

INVERSIONS_FILE = "inversions.safetensors"
_KEPT: frozenset[Split] = frozenset({"train", "test"})
"""Splits whose x_t and h are kept at every timestep."""


@dataclass(frozen=True)
class InvertedSplit:
    """The images of a split with their inversions; x_t and h at every timestep where kept."""

    batch: ImageBatch
    inversions: Inversions
    trajectories: TrajectoryStore | None


class Artifacts:
    """Shared artifacts of one data set in one run; `progress` is shown while one is made."""

    def __init__(self, domain: Domain, config: RunConfig, progress: Progress) -> None:
        self.domain, self.config, self.progress = domain, config, progress
        self.suite = config.suite
        self.cache = Cache(config.cache, lambda line: self.progress.note(line))
        self._entries: dict[CacheKey, Entry] = {}  # held while this object lives
        self._presence: dict[str, Tensor] = {}  # by a split's first image

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

    @property
    def sae_config(self) -> SaeConfig:
        """The shared SAE's kind and size."""
        return SaeConfig(d_in=self.domain.backbone.h_shape[0])

    def split_key(self, split: Split) -> CacheKey:
        """Everything that determines the inversions of a split."""
        card, domain = self.domain.dataset.card, self.domain
        return CacheKey(
            "inversions",
            {
                "stage": 4,
                ABOUT: [card.name, split],
                "dataset": [card.name, card.revision],
                "split": split,
                "count": self.suite.split_sizes[split],
                "trajectories": split in _KEPT,
                "backbone": domain.backbone.weights_hash,
                "timesteps": list(self.timesteps),
                "refinements": self.suite.refinements,
                "device": self.config.device.split(":")[0],
                "code": [code_hash(INVERSION_CODE), *map(source_hash, parts_of_domain(domain))],
                "environment": {**environment()},
            },
        )

    def sae_key(self) -> CacheKey:
        """Everything that determines the SAE."""
        return CacheKey(
            "sae",
            {
                "stage": 1,
                ABOUT: [self.domain.dataset.card.name],
                "activations": self.split_key("train").hash,
                "config": self.sae_config.model_dump(mode="json"),
                "trainer": self._trainer_config().model_dump(mode="json"),
                "seed": self.config.seed,
                "code": code_hash(SAE_CODE),
            },
        )

    def get(self) -> HSpaceSae:
        """The shared SAE (this object is the methods' `SaeProvider`)."""
        return self.sae

    @cached_property
    def sae(self) -> HSpaceSae:
        """Trained on h of the training images at all timesteps, or read from the cache."""
        return HSpaceSae.load(self._entry(self.sae_key(), self._train_sae).folder)

    def _train_sae(self, folder: Path) -> None:
        store = self.train.trajectories
        assert store is not None  # the training split keeps them
        trainer, workspace = self._trainer_config(), folder / "training"
        with (
            self.progress.task("SAE: training", trainer.steps, unit="steps") as advance,
            self.progress.costs.phase("SAE training"),
        ):
            sae = fit_h_space_sae(
                store,
                self.sae_config,
                trainer,
                generator(self.config.seed, "sae"),
                workspace=workspace,
                progress=lambda done, total: advance(1),
            )
        sae.save(folder)
        shutil.rmtree(workspace, ignore_errors=True)

    @property
    def passes_per_image(self) -> int:
        """U-Net passes of inversion, its refinements and the reconstruction."""
        return (2 + self.suite.refinements) * len(self.timesteps)

    def _trainer_config(self) -> SaeTraining:
        return SaeTraining(steps=self.suite.sae_steps)

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

        def make(folder: Path) -> None:
            self._invert(folder, split, batch)

        entry = self._entry(self.split_key(split), make)
        inversions = read_inversions(
            entry.folder / INVERSIONS_FILE, batch.image_ids, self.timesteps, batch.pixels
        )
        store = TrajectoryStore.open(entry.folder, entry.check_large) if split in _KEPT else None
        return InvertedSplit(batch, inversions, store)

    def _invert(self, folder: Path, split: Split, batch: ImageBatch) -> None:
        store = None
        if split in _KEPT:
            backbone = self.domain.backbone
            others = trajectory_bytes(self.cache.root / "inversions") - trajectory_bytes(folder)
            store = TrajectoryStore.create(
                folder, batch.image_ids, self.timesteps, batch.pixels.shape[1:], backbone.h_shape,
                refined=self.suite.refinements > 0, max_disk_bytes=disk_budget() - others,
            )  # fmt: skip
        work = float(self.passes_per_image * len(batch))
        with (
            self.progress.task(f"{split}: inversion", len(batch), work, "images") as advance,
            self.progress.costs.phase("inversion"),
        ):
            inversions = invert_in_parts(
                self.domain.backbone,
                batch,
                self.timesteps,
                self.suite.refinements,
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
