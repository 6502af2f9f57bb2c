"""The task that a method is checked on: a toy world, inverted, and all that a fit may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from casl_bench.activations.trajectory_store import TrajectoryStore
from casl_bench.backbones.schedule import linspace_timesteps
from casl_bench.core.seeding import generator
from casl_bench.images.dataset import Concept, DatasetCard, Split, SupportsOracle
from casl_bench.inversion.inversions import Inversions
from casl_bench.inversion.inverter import invert
from casl_bench.methods.generation import EditWindow, HSpaceEditor
from casl_bench.methods.method import Editor, EditTask, FitCost, MethodInfo
from casl_bench.methods.weight_edits import WeightEditor
from casl_bench.sae.h_space_sae import HSpaceSae
from casl_bench.sae.sparse_autoencoder import SaeConfig, SparseAutoencoder
from casl_bench.testing.toy_world import toy_world
from casl_bench.worlds.world import World

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 8, 3, 4
TIMESTEPS = linspace_timesteps(4, 999)


class UndeclaredUse(Exception):
    """A method used a part of its task that its info does not declare."""


class Undeclared:
    """Stands where an undeclared part of a task would be; any use of it is an error.

    Args:
        part: the field of the task.
        declaration: what the method's info would have to say.
        uses: every use is noted here too, for methods that catch the error.
    """

    def __init__(self, part: str, declaration: str, uses: list[str]) -> None:
        message = f"the method uses task.{part}, but its info does not declare {declaration}"
        self.__dict__.update(_message=message, _uses=uses)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._uses.append(self._message)
        raise UndeclaredUse(self._message)

    def __getattr__(self, name: str) -> Any:
        self._refuse()

    __call__ = __getitem__ = __iter__ = __len__ = __bool__ = __invert__ = __neg__ = _refuse
    __torch_function__ = _refuse


class ToyTasks:
    """Makes equal tasks, as the runner would, of one toy world.

    Attributes:
        world: the toy world, built for this object alone: a method may damage it.
        train: inversions that methods learn from.
        validation: inversions that methods which ask for them may look at.
        test: inversions that they are asked to edit.
        sae: an untrained SAE with the statistics of `train`.
    """

    def __init__(self) -> None:
        self.world = toy_world()
        inverted = _inverted()
        self.train, self.validation, self.test = inverted.train, inverted.validation, inverted.test
        self._labels, self._trajectories = inverted.labels, inverted.trajectories
        self.sae = _random_sae(self._trajectories)

    def get(self) -> HSpaceSae:
        """The SAE: these tasks are their own `SaeProvider`."""
        return self.sae

    def task(self, info: MethodInfo, workspace: Path) -> EditTask:
        """A task that holds what `info` declares and None for the rest. The folder is made."""
        workspace.mkdir(parents=True, exist_ok=True)
        card, dataset = self.world.dataset.card, self.world.dataset
        concept = card.concepts[0]
        assert isinstance(dataset, SupportsOracle)
        labels = self._labels[:, card.attributes.index(concept.attribute)]
        return EditTask(
            concept=concept,
            backbone=self.world.backbone,
            train=_copy(self.train),
            labels=labels.clone() if info.supervision == "labels" else None,
            trajectories=self._trajectories,
            saes=self if info.uses_sae else None,
            guide_clip=self.world.guide_clip if info.supervision == "text" else None,
            generator=generator(0, "fit", info.name),
            workspace=workspace,
            validation=_copy(self.validation) if info.uses_validation else None,
            oracle=dataset.oracle if info.needs_oracle else None,
            other_attributes=_others(card, concept) if info.needs_oracle else (),
            scorer=self.world.classifiers[0] if info.needs_scorer else None,
            beside=self._neighbour(info) if info.beside else None,
        )

    def guarded_task(self, info: MethodInfo, workspace: Path, uses: list[str]) -> EditTask:
        """The same task with an `Undeclared` in place of every None; `uses` collects misuse."""
        task = self.task(info, workspace)
        declarations = {
            "labels": 'supervision="labels"',
            "saes": "uses_sae=True",
            "guide_clip": 'supervision="text"',
            "validation": "uses_validation=True",
            "oracle": "needs_oracle=True (controls only)",
            "scorer": "needs_scorer=True (controls only)",
            "beside": "beside=True (controls only)",
        }
        stand_ins: dict[str, Any] = {
            part: Undeclared(part, declaration, uses)
            for part, declaration in declarations.items()
            if getattr(task, part) is None
        }
        return replace(task, **stand_ins)

    def test_images(self, places: Sequence[int] | None = None) -> Inversions:
        """A fresh copy of the test inversions, or of those at these places."""
        return _copy(self.test if places is None else self.test.take(places))

    def _neighbour(self, info: MethodInfo) -> Editor:
        """The fitted editor that a control with `beside` is given, of the control's own space."""
        if info.space == "weights":
            return _ConstantWeights(self.world.backbone, t_start=500, cost=FitCost())
        return _ConstantShift(
            self.world.backbone, EditWindow(t_edit=500), noise_seed=0, cost=FitCost()
        )


def _others(card: DatasetCard, concept: Concept) -> tuple[str, ...]:
    return tuple(a for a in card.attributes if a != concept.attribute)


class _ConstantWeights(WeightEditor):
    """Adds the same small number to every weight."""

    def weight_delta(self) -> dict[str, Tensor]:
        weights = self.backbone.unet.state_dict()
        return {name: torch.full_like(value, 1e-3) for name, value in weights.items()}

    def state(self) -> dict[str, Tensor]:
        return {}


class _ConstantShift(HSpaceEditor):
    """Adds the same number to all of h."""

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        return torch.full_like(h, 0.1)

    def state(self) -> dict[str, Tensor]:
        return {}


def _copy(x: Inversions) -> Inversions:
    return Inversions(
        x.image_ids, x.timesteps, x.x_0.clone(), x.x_T.clone(), x.reconstruction.clone()
    )


@dataclass(frozen=True)
class _Inverted:
    """Inversions of the three splits; labels [n, A] and trajectories of the training images."""

    train: Inversions
    validation: Inversions
    test: Inversions
    labels: Tensor
    trajectories: TrajectoryStore


@cache
def _inverted() -> _Inverted:
    """Made once, in a world apart."""
    world = toy_world()
    images = world.dataset.load("train", NUM_TRAIN)
    assert images.attributes is not None
    store = TrajectoryStore.create(
        None, images.image_ids, TIMESTEPS, images.pixels.shape[1:], world.backbone.h_shape
    )
    train = invert(world.backbone, images.image_ids, images.pixels, TIMESTEPS, collect=store.record)
    return _Inverted(
        train,
        _unseen(world, "validation", NUM_VALIDATION),
        _unseen(world, "test", NUM_TEST),
        images.attributes,
        store,
    )


def _unseen(world: World, split: Split, count: int) -> Inversions:
    images = world.dataset.load(split, count)
    return invert(world.backbone, images.image_ids, images.pixels, TIMESTEPS)


def _random_sae(store: TrajectoryStore) -> HSpaceSae:
    maps = torch.stack([store.h(step) for step in range(len(store.timesteps))])
    mean = maps.mean((1, 3, 4))
    scale = (maps - mean[:, None, :, None, None]).pow(2).mean((1, 2, 3, 4)).sqrt()
    config = SaeConfig(d_in=maps.shape[2], d_sae=2 * maps.shape[2], k=8)
    sae = SparseAutoencoder(config, generator(0, "toy sae"))
    return HSpaceSae(sae, store.timesteps, mean, scale)
