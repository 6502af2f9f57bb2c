"""What all cells of one data set share: images, inversions, trajectories, the SAE.

Made on first use, kept in the run folder under a key of everything that determines them, and
taken from there when the same command is run again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from casl_bench.activations.disk_budget import (
    check_disk,
    disk_budget,
    store_bytes,
    trajectory_bytes,
)
from casl_bench.activations.trajectory_store import TrajectoryStore
from casl_bench.backbones.schedule import power_timesteps
from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import write_bytes
from casl_bench.core.seeding import generator
from casl_bench.images.dataset import Concept, ImageBatch, Split
from casl_bench.inversion.inversions import Inversions
from casl_bench.inversion.stored_inversions import read_inversions, write_inversions
from casl_bench.runs.config import RunConfig, Suite
from casl_bench.runs.progress import Progress
from casl_bench.runs.split_inversion import any_parts, forget_parts, invert_in_parts
from casl_bench.sae.fit import fit_h_space_sae
from casl_bench.sae.h_space_sae import HSpaceSae
from casl_bench.sae.sparse_autoencoder import SaeConfig
from casl_bench.sae.trainer import SaeTraining
from casl_bench.worlds.world import World

INVERSIONS_FILE = "inversions.safetensors"
SPENT_FILE = "spent.json"
"""Beside a shared artefact: what it took, as a run that only reads it is asked for that too."""


@dataclass(frozen=True)
class InvertedSplit:
    """The images of a split with their inversions; x_t and h at every timestep where kept."""

    batch: ImageBatch
    inversions: Inversions
    trajectories: TrajectoryStore | None


@dataclass(frozen=True)
class InversionCost:
    """What inverting and reconstructing the images of a split took.

    Attributes:
        images: how many.
        unet_calls: U-Net passes, in images.
        seconds: wall time; None where the inversion was interrupted and nobody measured it all.
    """

    images: int
    unet_calls: int
    seconds: float | None


class Artefacts:
    """Shared artefacts of one data set in one run.

    Args:
        world: the data set's world.
        config: the run.
        progress: shown while something is made.
    """

    def __init__(self, world: World, config: RunConfig, progress: Progress) -> None:
        self.world, self.config, self.progress = world, config, progress
        self._folder = config.out / "artefacts" / world.dataset.card.name
        self._presence: dict[str, Tensor] = {}  # by a split's first image

    @property
    def suite(self) -> Suite:
        """The run's suite."""
        return self.config.suite

    @cached_property
    def timesteps(self) -> tuple[int, ...]:
        """The walk of inversion and generation."""
        t_max = self.world.backbone.schedule.num_timesteps - 1
        return power_timesteps(self.suite.num_steps, t_max, self.suite.timestep_power)

    @cached_property
    def train(self) -> InvertedSplit:
        """What methods, SAE and probe learn from."""
        return self._split("train", self.suite.train_images, keep=True)

    @cached_property
    def validation(self) -> InvertedSplit:
        """What strengths are chosen on."""
        return self._split("validation", self.suite.validation_pool_images)

    @cached_property
    def test(self) -> InvertedSplit:
        """What is reported."""
        return self._split("test", self.suite.test_pool_images, keep=True)

    def concept_split(
        self, split: InvertedSplit, concept: Concept, count: int, *, present: bool = False
    ) -> InvertedSplit:
        """The first images of a split that lack a concept's attribute.

        Args:
            split: one of this object's.
            concept: whose attribute.
            count: how many.
            present: those that have it instead, and as many as there are where they are fewer.

        Raises:
            InvalidBenchmarkError: if fewer lack it.
        """
        column = self.world.dataset.card.attributes.index(concept.attribute)
        there = self.presence(split)[:, column]
        places = (there if present else ~there).nonzero().flatten().tolist()
        if not present and len(places) < count:
            raise InvalidBenchmarkError(
                f"only {len(places)} of {len(split.batch)} images lack '{concept.attribute}'",
                mend=f"{count} are needed: raise the suite's pool",
            )
        places = places[:count]
        return InvertedSplit(split.batch.take(places), split.inversions.take(places), None)

    def concept_validation(self, concept: Concept) -> InvertedSplit:
        """The validation images on which a concept's strengths are chosen."""
        return self.concept_split(self.validation, concept, self.suite.validation_images)

    def presence(self, split: InvertedSplit) -> Tensor:
        """[n, A] bool of a split of this object, judged once; see `World.presence`."""
        first = split.batch.image_ids[0]
        if first not in self._presence:
            self._presence[first] = self.world.presence(split.batch)
        return self._presence[first]

    @property
    def sae_config(self) -> SaeConfig:
        """The shared SAE's kind and size."""
        return SaeConfig(d_in=self.world.backbone.h_shape[0])

    def sae_key(self) -> str:
        """Hash of everything that determines the SAE."""
        return hash_json(
            {
                "stage": 1,
                "activations": self._split_key("train", self.suite.train_images),
                "config": self.sae_config.model_dump(mode="json"),
                "trainer": self._trainer_config().model_dump(mode="json"),
                "seed": self.config.seed,
            }
        )

    def get(self) -> HSpaceSae:
        """The shared SAE (this object is the methods' `SaeProvider`)."""
        return self.sae

    @cached_property
    def sae(self) -> HSpaceSae:
        """Trained on h of the training images at all timesteps, or read from the run folder."""
        folder = self._folder / f"sae-{self.sae_key()[:16]}"
        if (folder / "cfg.json").exists():
            return HSpaceSae.load(folder)
        store = self.train.trajectories
        assert store is not None  # the training split keeps them
        began = _Began(afresh=not folder.with_suffix(".training").exists())
        trainer = self._trainer_config()
        with self.progress.task("SAE: training", trainer.steps) as advance:
            sae = fit_h_space_sae(
                store,
                self.sae_config,
                trainer,
                generator(self.config.seed, "sae"),
                workspace=folder.with_suffix(".training"),
                progress=lambda done, total: advance(1),
            )
        sae.save(folder)
        began.write_spent(folder)
        shutil.rmtree(folder.with_suffix(".training"), ignore_errors=True)
        return sae

    @property
    def sae_seconds(self) -> float | None:
        """Wall time of the SAE's training, whichever run made it; None where it was interrupted."""
        return _read_spent(self._folder / f"sae-{self.sae_key()[:16]}")

    def inversion_costs(self) -> dict[Split, InversionCost]:
        """What inverting each split took, whichever run did it."""
        splits: tuple[tuple[Split, int], ...] = (
            ("train", self.suite.train_images),
            ("validation", self.suite.validation_pool_images),
            ("test", self.suite.test_pool_images),
        )
        return {
            split: InversionCost(
                count,
                self._passes_per_image() * count,
                _read_spent(self._split_folder(split, count)),
            )
            for split, count in splits
        }

    def _passes_per_image(self) -> int:
        """Inversion, its refinements and the reconstruction."""
        return (2 + self.suite.refinements) * len(self.timesteps)

    def _trainer_config(self) -> SaeTraining:
        return SaeTraining(steps=self.suite.sae_steps)

    def _split_key(self, split: Split, count: int) -> str:
        card = self.world.dataset.card
        return hash_json(
            {
                "stage": 3,
                "dataset": [card.name, card.revision],
                "split": split,
                "count": count,
                "backbone": self.world.backbone.weights_hash,
                "timesteps": list(self.timesteps),
                "refinements": self.suite.refinements,
                "device": self.config.device.split(":")[0],
            }
        )

    def _split_folder(self, split: Split, count: int) -> Path:
        return self._folder / f"{split}-{self._split_key(split, count)[:16]}"

    def _split(self, split: Split, count: int, keep: bool = False) -> InvertedSplit:
        batch = self.world.dataset.load(split, count)
        batch = replace(batch, pixels=batch.pixels.contiguous())
        folder = self._split_folder(split, count)
        stored = folder / INVERSIONS_FILE
        if stored.exists():
            inversions = read_inversions(stored, batch.image_ids, self.timesteps, batch.pixels)
            return InvertedSplit(batch, inversions, TrajectoryStore.open(folder) if keep else None)
        store = None
        if keep:
            backbone = self.world.backbone
            store = TrajectoryStore.create(
                folder, batch.image_ids, self.timesteps, batch.pixels.shape[1:], backbone.h_shape,
                refined=self.suite.refinements > 0, max_disk_bytes=self._disk_left(folder),
            )  # fmt: skip
        work = float(self._passes_per_image() * count)
        began = _Began(afresh=not any_parts(folder))
        with self.progress.task(f"{split}: inversion", count, work) as advance:
            inversions = invert_in_parts(
                self.world.backbone,
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
        began.write_spent(folder)
        write_inversions(stored, inversions)
        forget_parts(folder)
        return InvertedSplit(batch, inversions, store)

    def _disk_left(self, folder: Path) -> int:
        """What the budget leaves to one store of the run, in bytes."""
        others = trajectory_bytes(self.config.out / "artefacts") - trajectory_bytes(folder)
        return disk_budget() - others

    def trajectory_bytes_to_come(self) -> int:
        """What the stores of this data set will still take on disk."""
        backbone, suite = self.world.backbone, self.suite
        image_shape = (3, backbone.image_size, backbone.image_size)
        splits: tuple[tuple[Split, int], ...] = (
            ("train", suite.train_images),
            ("test", suite.test_pool_images),
        )
        total = 0
        for split, count in splits:
            folder = self._split_folder(split, count)
            whole = store_bytes(count, len(self.timesteps), image_shape, backbone.h_shape)
            if not (folder / INVERSIONS_FILE).exists():
                total += max(0, whole - trajectory_bytes(folder))
        return total


def check_room(config: RunConfig, artefacts: Iterable[Artefacts]) -> None:
    """Refuse a run that the disk or its budget has no room for, before anything is made.

    Raises:
        UsageError: with what is needed and what is there.
    """
    there = trajectory_bytes(config.out / "artefacts")
    check_disk(
        sum(a.trajectory_bytes_to_come() for a in artefacts), config.out, disk_budget() - there
    )


class _Began:
    """Measures the making of an artefact that a run may be interrupted in.

    Args:
        afresh: nothing of it was there; what goes on from an earlier run is not measured.
    """

    def __init__(self, afresh: bool) -> None:
        self._afresh, self._started = afresh, time.monotonic()

    def write_spent(self, folder: Path) -> None:
        seconds = time.monotonic() - self._started if self._afresh else None
        write_bytes(folder / SPENT_FILE, json.dumps({"seconds": seconds}).encode())


def _read_spent(folder: Path) -> float | None:
    try:
        seconds = json.loads((folder / SPENT_FILE).read_bytes())["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # made before its time was kept
    return None if seconds is None else float(seconds)
