"""A domain of sixteen-pixel pictures in which a whole run takes seconds.

Its classifiers and its reader of factors read the attributes off known pixels and are always right;
its U-Net, CLIPs and embedder are untrained, so what methods learn in it means nothing. Every part
has the type, the shapes and the determinism of the real thing. It is not found among the data sets
unless a test calls `register_toy_domain`, or a user names a plugin that does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from casl_bench.core.errors import unknown_name
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import (
    DATASETS,
    Concept,
    DatasetCard,
    ImageBatch,
    Split,
    SupportsOracle,
)
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import Editor, EditTask, FitCost, MethodInfo
from casl_bench.methods.weight_editor import WeightEditor
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel, ClipScorer, WordTokenizer, build_clip
from casl_bench.models.embedder import EmbedderNet, RenderEmbedder
from casl_bench.models.factor_regressor import FactorRegressor
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.noise_schedule import linspace_timesteps
from casl_bench.models.random_numbers import generator
from casl_bench.models.scorers import ScorerInfo
from casl_bench.models.unet import BackboneConfig, build_unet
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig
from casl_bench.sae.sae import HSpaceSae

# Untrained networks whose weights are always the same ones.

T = TypeVar("T")


def seeded(what: str, purpose: str, build: Callable[[], T]) -> T:
    """Build from random numbers that depend on `what` and `purpose` alone.

    The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, what, purpose))
        return build()


# Sixteen-pixel pictures with three known attributes: enough to run everything in a second.

IMAGE_SIZE = 16
STRIPE_ROWS = slice(13, 15)
ATTRIBUTES = ("bright", "red", "striped")

CARD = DatasetCard(
    name="toy_shapes",
    domain_kind="toy",
    revision="1",
    resolution=IMAGE_SIZE,
    attributes=ATTRIBUTES,
    concepts=tuple(Concept(a, "a square", f"a {a} square", a) for a in ATTRIBUTES),
    description="A square on a plain ground, drawn in numpy. For tests: its numbers mean nothing.",
    licence="Apache-2.0",
    source="ours",
)


class ToyShapes:
    """A square on a plain ground: `Dataset` and `SupportsOracle`.

    A picture is a function of its id alone: three fair coins, and where and how large the square
    is.
    """

    card = CARD

    def load(self, split: Split, count: int) -> ImageBatch:
        """The first `count` images of a split; there is no end to them."""
        ids = tuple(f"toy_{split}_{i:05d}" for i in range(count))
        factors = [_factors_of(i) for i in ids]
        labels = torch.from_numpy(np.array([coins for coins, _ in factors], bool).reshape(-1, 3))
        return ImageBatch(ids, _stack([_draw(*f) for f in factors]), labels)

    def oracle(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """The same pictures with one attribute flipped: [n, 3, 16, 16] in [-1, 1].

        Raises:
            UsageError: for an attribute that these pictures do not have.
        """
        if attribute not in ATTRIBUTES:
            raise unknown_name("attribute", attribute, ATTRIBUTES)
        flip = np.array([a == attribute for a in ATTRIBUTES])
        factors = [_factors_of(i) for i in image_ids]
        return _stack([_draw(coins ^ flip, nuisance) for coins, nuisance in factors])


def _factors_of(image_id: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(derive_seed(0, "toy picture", image_id))
    return rng.random(3) < 0.5, rng.random(3)


def _draw(coins: NDArray[np.bool_], nuisance: NDArray[np.float64]) -> NDArray[np.float32]:
    bright, red, striped = coins
    image = np.full((3, IMAGE_SIZE, IMAGE_SIZE), 0.5 if bright else -0.5, np.float32)
    top, left = (2 + int(4 * x) for x in nuisance[:2])
    side = 5 + int(4 * nuisance[2])
    colour = (0.9, -0.8, -0.8) if red else (-0.8, -0.8, 0.9)
    image[:, top : top + side, left : left + side] = np.array(colour, np.float32)[:, None, None]
    if striped:
        image[:, STRIPE_ROWS] = 0.9
    return image


def _stack(images: Sequence[NDArray[np.float32]]) -> Tensor:
    stacked = np.stack(images) if images else np.empty((0, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    return torch.from_numpy(stacked)


_WEIGHTS = "toy weights"

WORDS = ("a", "square", *ATTRIBUTES)
MEAN_STD = (0.5, 0.5, 0.5)
OUTPUT_SCALE = 0.003
LOGIT_SCALE = (8.0, 3.0, 20.0)


def toy_domain(device: str = "cpu", options: DomainOptions | None = None) -> Domain:
    """A new domain, equal to every other one, whose networks are its own."""
    return Domain(
        name=CARD.domain_kind,
        dataset=ToyShapes(),
        backbone=_backbone().to(device),
        guide_clip=_clip("toy_guide", width=32),
        score_clip=ClipScorer(_clip("toy_scorer", width=48)),
        classifiers=(
            # They share no pixel: what fools one is not seen by the other.
            _classifier("toy_reader", ground_rows=(0, 1), core=(5,), stripe_rows=(13,)),
            _classifier("toy_second_reader", ground_rows=(15,), core=(6,), stripe_rows=(14,)),
        ),
        embedder=_embedder(),
        factors=_factors("toy_factors", ground_rows=(1, 15), core=(5,), stripe_rows=(13, 14)),
    )


TUNING_CARD = replace(CARD, name="toy_tuning", concepts=CARD.concepts[2:])


class TuningShapes(ToyShapes):
    """The same pictures, of which one concept is ranked and two are held out for tuning."""

    card = TUNING_CARD


def toy_tuning_domain(device: str = "cpu", options: DomainOptions | None = None) -> Domain:
    """The toy domain with two tuning concepts, and a tuning classifier with pixels of its own."""
    return replace(
        toy_domain(device, options),
        dataset=TuningShapes(),
        tuning_concepts=CARD.concepts[:2],
        tuning_classifier=_classifier(
            "toy_tuner", ground_rows=(0, 15), core=(5, 6), stripe_rows=(13, 14)
        ),
    )


def register_toy_domain() -> None:
    """Make the data sets `toy_shapes` and `toy_tuning` and their domains known by name."""
    DATASETS.register(CARD.name, ToyShapes)
    DOMAINS.register(CARD.name, toy_domain)
    DATASETS.register(TUNING_CARD.name, TuningShapes)
    DOMAINS.register(TUNING_CARD.name, toy_tuning_domain)


def _backbone() -> Backbone:
    config = BackboneConfig(
        name="toy_unet",
        image_size=IMAGE_SIZE,
        patch_size=2,
        micro_batch=4,
        unet={
            "sample_size": IMAGE_SIZE // 2,
            "in_channels": 12,
            "out_channels": 12,
            "block_out_channels": [16, 32],
            "down_block_types": ["DownBlock2D"] * 2,
            "up_block_types": ["UpBlock2D"] * 2,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "add_attention": False,
        },
    )
    unet = seeded(_WEIGHTS, config.name, lambda: build_unet(config.unet))
    with torch.no_grad():
        # eps that hardly depends on x_t: inversion gives the pictures back.
        unet.conv_out.weight *= OUTPUT_SCALE
    return Backbone(config, unet)


def _clip(name: str, width: int) -> ClipModel:
    tower = {"layers": 1, "width": width}
    config = {
        "embed_dim": 16,
        "vision": {**tower, "image_size": IMAGE_SIZE, "patch_size": 8, "head_width": 16},
        "text": {**tower, "context_length": 6, "heads": 2},
        "words": WORDS,
    }
    network = seeded(_WEIGHTS, name, lambda: build_clip(config))
    digest = hash_tensors(network.state_dict())
    tokenizer = WordTokenizer(WORDS, 6)
    return ClipModel(name, network, tokenizer, digest, IMAGE_SIZE, MEAN_STD, MEAN_STD)


def _reader(
    name: str, ground_rows: tuple[int, ...], core: tuple[int, ...], stripe_rows: tuple[int, ...]
) -> nn.Module:
    """Reads the three attributes off the pixels that `toy_shapes` gives them.

    The name is that of records; neither the square nor the stripe ever reaches `ground_rows`, the
    square always covers `core` (rows and columns), and of `STRIPE_ROWS` `stripe_rows` are read.
    """
    ground = torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE)
    ground[:, ground_rows] = 1 / (3 * len(ground_rows) * IMAGE_SIZE)
    stripe = torch.zeros_like(ground)
    stripe[:, stripe_rows] = 1 / (3 * len(stripe_rows) * IMAGE_SIZE)
    red = torch.zeros_like(ground)
    for row in core:
        red[0, row, core] = 1 / len(core) ** 2
    red[2] = -red[0]
    reader = seeded(_WEIGHTS, name, lambda: nn.Linear(ground.numel(), len(ATTRIBUTES)))
    with torch.no_grad():
        # ±0.5; ±1.7; and 0.4 or 1.4 where striped.
        reader.weight.copy_(torch.stack([w.flatten() for w in (ground, red, stripe - ground)]))
        reader.bias.copy_(torch.tensor([0.0, 0.0, -0.2]))
    return nn.Sequential(nn.Flatten(), reader)


def _calibration() -> tuple[Tensor, Tensor]:
    return torch.tensor(LOGIT_SCALE), torch.zeros(len(ATTRIBUTES))


def _classifier(name: str, **pixels: tuple[int, ...]) -> AttributeClassifier:
    network = _reader(name, **pixels)
    info = ScorerInfo(name, "attributes", 1, hash_tensors(network.state_dict()))
    return AttributeClassifier(info, ATTRIBUTES, network, *_calibration(), IMAGE_SIZE)


def _factors(name: str, **pixels: tuple[int, ...]) -> FactorRegressor:
    network = _reader(name, **pixels)
    info = ScorerInfo(name, "factors", 1, hash_tensors(network.state_dict()))
    return FactorRegressor(info, ATTRIBUTES, ATTRIBUTES, network, *_calibration(), IMAGE_SIZE)


def _embedder() -> RenderEmbedder:
    network = seeded(_WEIGHTS, "toy_embedder", lambda: EmbedderNet((8, 8), 8))
    info = ScorerInfo("toy_embedder", "similarity", 1, hash_tensors(network.state_dict()))
    return RenderEmbedder(info, network, IMAGE_SIZE)


# The task that a method is checked on: a toy domain, inverted, and all that a fit may ask for.

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 8, 3, 4
TIMESTEPS = linspace_timesteps(4, 999)


class UndeclaredUse(Exception):
    """A method used a part of its task that its info does not declare."""


class Undeclared:
    """Stands where an undeclared part of a task would be; any use of it is an error.

    Every use is noted in `uses` too, for methods that catch the error.
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
    """Makes equal tasks, as the runner would, of one toy domain.

    The domain is built for this object alone, since a method may damage it; the SAE is untrained
    and has the statistics of the training inversions.
    """

    def __init__(self) -> None:
        self.domain = toy_domain()
        self.train, self._labels, self._trajectories = _inverted("train", NUM_TRAIN)
        self.validation, *_ = _inverted("validation", NUM_VALIDATION)
        self.test, *_ = _inverted("test", NUM_TEST)
        self.sae = _random_sae(self._trajectories)

    def get(self) -> HSpaceSae:
        """The SAE: these tasks are their own `SaeProvider`."""
        return self.sae

    def task(self, info: MethodInfo, workspace: Path) -> EditTask:
        """A task that holds what `info` declares and None for the rest. The folder is made."""
        workspace.mkdir(parents=True, exist_ok=True)
        card, dataset = self.domain.dataset.card, self.domain.dataset
        concept = card.concepts[0]
        assert isinstance(dataset, SupportsOracle)
        labels = {a: own.clone() for a, own in zip(card.attributes, self._labels.T, strict=True)}
        others = tuple(a for a in card.attributes if a != concept.attribute)
        return EditTask(
            concept=concept,
            backbone=self.domain.backbone,
            train=deepcopy(self.train),
            labels=labels[concept.attribute] if info.supervision == "labels" else None,
            all_labels=labels if info.uses_all_labels else None,
            trajectories=self._trajectories,
            saes=self if info.uses_sae else None,
            guide_clip=self.domain.guide_clip if info.sees_text else None,
            generator=generator(0, "fit", info.name),
            workspace=workspace,
            validation=deepcopy(self.validation) if info.uses_validation else None,
            oracle=dataset.oracle if info.needs_oracle else None,
            other_attributes=others if info.needs_oracle else (),
            scorer=self.domain.classifiers[0] if info.needs_scorer else None,
            beside=self._neighbour(info) if info.beside else None,
        )

    def guarded_task(self, info: MethodInfo, workspace: Path, uses: list[str]) -> EditTask:
        """The same task with an `Undeclared` in place of every None; `uses` collects misuse."""
        task = self.task(info, workspace)
        declarations = {
            "labels": 'supervision="labels"',
            "all_labels": 'uses_all_labels=True (with supervision="labels")',
            "saes": "uses_sae=True",
            "guide_clip": 'supervision="text" (or uses_text=True beside labels)',
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
        return deepcopy(self.test if places is None else self.test.take(places))

    def _neighbour(self, info: MethodInfo) -> Editor:
        """The fitted editor that a control with `beside` is given, of the control's own space."""
        if info.space == "weights":
            return _ConstantWeights(self.domain.backbone, t_start=500, cost=FitCost())
        return _ConstantShift(
            self.domain.backbone, EditWindow(t_edit=500), noise_seed=0, cost=FitCost()
        )


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


@cache
def _inverted(split: Split, count: int) -> tuple[Inversions, Tensor, TrajectoryStore]:
    """Inversions, labels [n, A] and trajectories, made once, in a domain apart."""
    domain = toy_domain()
    images = domain.dataset.load(split, count)
    assert images.attributes is not None
    store = TrajectoryStore.create(
        None, images.image_ids, TIMESTEPS, images.pixels.shape[1:], domain.backbone.h_shape
    )
    inversions = invert(
        domain.backbone, images.image_ids, images.pixels, TIMESTEPS, collect=store.record
    )
    return inversions, images.attributes, store


def _random_sae(store: TrajectoryStore) -> HSpaceSae:
    maps = torch.stack([store.h(step) for step in range(len(store.timesteps))])
    mean = maps.mean((1, 3, 4))
    scale = (maps - mean[:, None, :, None, None]).pow(2).mean((1, 2, 3, 4)).sqrt()
    config = SaeConfig(d_in=maps.shape[2], d_sae=2 * maps.shape[2], k=8)
    sae = TopK(config, generator(0, "toy sae"))
    return HSpaceSae(sae, store.timesteps, mean, scale)
