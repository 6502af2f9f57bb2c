"""What all cells of one data set share: images, inversions, trajectories, the SAE.

Made on first use, kept in the run folder under a key of everything that determines them, and
taken from there when the same command is run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from casl_bench.activations.trajectory_store import TrajectoryStore
from casl_bench.backbones.schedule import power_timesteps
from casl_bench.core.content_hash import hash_json, hash_tensors
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import write_bytes
from casl_bench.core.seeding import generator
from casl_bench.images.dataset import Concept, ImageBatch, Split
from casl_bench.inversion.inversions import Inversions
from casl_bench.inversion.inverter import invert
from casl_bench.runs.config import RunConfig, Suite
from casl_bench.runs.progress import Advance, Progress
from casl_bench.sae.fit import fit_h_space_sae
from casl_bench.sae.h_space_sae import HSpaceSae
from casl_bench.sae.sparse_autoencoder import SaeConfig
from casl_bench.sae.trainer import SaeTraining
from casl_bench.worlds.world import World


@dataclass(frozen=True)
class InvertedSplit:
    """The images of a split with their inversions; x_t and h at every timestep where kept."""

    batch: ImageBatch
    inversions: Inversions
    trajectories: TrajectoryStore | None

    def lacking(self, attribute: int, count: int) -> list[int]:
        """Places of the first `count` images without the attribute.

        Raises:
            InvalidBenchmarkError: if there are fewer.
        """
        if self.batch.attributes is None:
            raise InvalidBenchmarkError("the data set has no attribute labels")
        places = (~self.batch.attributes[:, attribute]).nonzero().flatten().tolist()
        if len(places) < count:
            raise InvalidBenchmarkError(
                f"only {len(places)} of {len(self.batch)} images lack attribute {attribute}",
                mend=f"{count} are needed: raise the suite's pool",
            )
        return places[:count]


class Artefacts:
    """Shared artefacts of one data set in one run.

    Args:
        world: the data set's world.
        config: the run.
        progress: shown while something is made.
    """

    def __init__(self, world: World, config: RunConfig, progress: Progress) -> None:
        self.world, self.config, self._progress = world, config, progress
        self._folder = config.out / "artefacts" / world.dataset.card.name

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

    def concept_split(self, split: InvertedSplit, concept: Concept, count: int) -> InvertedSplit:
        """The first images of a split that lack a concept's attribute."""
        column = self.world.dataset.card.attributes.index(concept.attribute)
        places = split.lacking(column, count)
        return InvertedSplit(split.batch.take(places), split.inversions.take(places), None)

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
        trainer = self._trainer_config()
        with self._progress.task("SAE: training", trainer.steps) as advance:
            sae = fit_h_space_sae(
                store,
                self.sae_config,
                trainer,
                generator(self.config.seed, "sae"),
                workspace=folder.with_suffix(".training"),
                progress=lambda done, total: advance(1),
            )
        sae.save(folder)
        shutil.rmtree(folder.with_suffix(".training"), ignore_errors=True)
        return sae

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

    def _split(self, split: Split, count: int, keep: bool = False) -> InvertedSplit:
        batch = self.world.dataset.load(split, count)
        batch = replace(batch, pixels=batch.pixels.contiguous())
        folder = self._folder / f"{split}-{self._split_key(split, count)[:16]}"
        stored = folder / "inversions.safetensors"
        if stored.exists():
            inversions = _read_inversions(stored, batch, self.timesteps)
            return InvertedSplit(batch, inversions, TrajectoryStore.open(folder) if keep else None)
        store = None
        if keep:
            backbone = self.world.backbone
            store = TrajectoryStore.create(
                folder, batch.image_ids, self.timesteps, batch.pixels.shape[1:], backbone.h_shape,
                refined=self.suite.refinements > 0,
            )  # fmt: skip
        work = (2.0 + self.suite.refinements) * count * len(self.timesteps)
        with self._progress.task(f"{split}: inversion", count, work) as advance:
            inversions = self._invert(batch, store, advance)
        if store is not None:
            store.finish()
        tensors = {"x_T": inversions.x_T, "reconstruction": inversions.reconstruction}
        write_bytes(stored, save(tensors, metadata={"sha256": hash_tensors(tensors)}))
        return InvertedSplit(batch, inversions, store)

    def _invert(
        self, batch: ImageBatch, store: TrajectoryStore | None, advance: Advance
    ) -> Inversions:
        """Invert in chunks of the run's batch size; the backbone's micro-batches lie within."""
        size = self.config.batch_size or len(batch)
        parts = []
        for start in range(0, len(batch), size):
            chunk = batch.take(range(start, min(start + size, len(batch))))

            def collect(step: int, rows: slice, state: object, start: int = start) -> None:
                assert store is not None
                store.record(step, slice(start + rows.start, start + rows.stop), state)  # type: ignore[arg-type]

            done = 0

            def show(count: int, total: int) -> None:
                nonlocal done
                advance(count - done)
                done = count

            parts.append(
                invert(
                    self.world.backbone,
                    chunk.image_ids,
                    chunk.pixels,
                    self.timesteps,
                    progress=show,
                    collect=None if store is None else collect,
                    refinements=self.suite.refinements,
                )
            )
        return Inversions(
            batch.image_ids,
            self.timesteps,
            batch.pixels,
            # Contiguous, as they come back from the file: a memory layout, too, may change bits.
            torch.cat([p.x_T for p in parts]).contiguous(),
            torch.cat([p.reconstruction for p in parts]).contiguous(),
        )


def _read_inversions(path: Path, batch: ImageBatch, timesteps: Sequence[int]) -> Inversions:
    """Stored inversions of these images; InvalidBenchmarkError where the file is damaged."""
    from safetensors import safe_open

    try:
        tensors: dict[str, Tensor] = load_file(path)
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("sha256")
        if hash_tensors(tensors) != expected:
            raise ValueError("its content is not what was written")
        x_T, reconstruction = tensors["x_T"], tensors["reconstruction"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"stored inversions cannot be used: {error}",
            where=str(path),
            mend="delete the file to invert again",
        ) from error
    return Inversions(batch.image_ids, tuple(timesteps), batch.pixels, x_T, reconstruction)
