"""A world of sixteen-pixel pictures and untrained networks: a whole run in about a second.

Nothing in it has learned anything, so its numbers mean nothing; every part has the type, the
shapes and the determinism of the real thing. It is not found among the data sets unless a test
calls `register_toy_world`, or a user names a plugin that does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from casl_bench.backbones.backbone import Backbone
from casl_bench.backbones.clip_model import ClipModel, build_clip
from casl_bench.backbones.diffusers_unet import BackboneConfig, build_unet
from casl_bench.backbones.word_tokenizer import WordTokenizer
from casl_bench.core.content_hash import hash_tensors
from casl_bench.core.seeding import derive_seed
from casl_bench.images.dataset import DATASETS
from casl_bench.scorers.attribute_classifier import AttributeClassifier, build_classifier
from casl_bench.scorers.clip_scorer import ClipScorer
from casl_bench.scorers.embedder import Embedder
from casl_bench.scorers.scorer import ScorerInfo
from casl_bench.testing.toy_shapes import ATTRIBUTES, CARD, IMAGE_SIZE, ToyShapes
from casl_bench.worlds.world import WORLDS, World

T = TypeVar("T")

WORDS = ("a", "square", *ATTRIBUTES)
MEAN_STD = (0.5, 0.5, 0.5)


def toy_world(device: str = "cpu") -> World:
    """A new world, equal to every other one, whose networks are nobody else's."""
    return World(
        name=CARD.world,
        dataset=ToyShapes(),
        backbone=_backbone().to(device),
        guide_clip=_clip("toy_guide", width=32),
        score_clip=ClipScorer(_clip("toy_scorer", width=48)),
        classifiers=(
            _classifier("toy_plain", {"architecture": "plain", "widths": [8, 8]}),
            _classifier(
                "toy_depthwise", {"architecture": "depthwise", "widths": [8, 8], "blocks": [1, 1]}
            ),
        ),
        embedder=_embedder(),
    )


def register_toy_world() -> None:
    """Make the data set `toy_shapes` and its world known by name."""
    DATASETS.register(CARD.name, ToyShapes)
    WORLDS.register(CARD.name, toy_world)


def _seeded(purpose: str, build: Callable[[], T]) -> T:
    """Build a network from weights that depend on the purpose alone, global state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, "toy weights", purpose))
        return build()


def _backbone() -> Backbone:
    config = BackboneConfig(
        name="toy_unet",
        image_size=IMAGE_SIZE,
        micro_batch=4,
        unet={
            "sample_size": IMAGE_SIZE,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": [16, 16, 32],
            "down_block_types": ["DownBlock2D"] * 3,
            "up_block_types": ["UpBlock2D"] * 3,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "attention_head_dim": 8,
        },
    )
    return Backbone(config, _seeded(config.name, lambda: build_unet(config.unet)))


def _clip(name: str, width: int) -> ClipModel:
    tower = {"layers": 1, "width": width}
    config = {
        "embed_dim": 16,
        "vision": {**tower, "image_size": IMAGE_SIZE, "patch_size": 8, "head_width": 16},
        "text": {**tower, "context_length": 6, "heads": 2},
        "words": WORDS,
    }
    network = _seeded(name, lambda: build_clip(config))
    digest = hash_tensors(network.state_dict())
    tokenizer = WordTokenizer(WORDS, 6)
    return ClipModel(name, network, tokenizer, digest, IMAGE_SIZE, MEAN_STD, MEAN_STD)


def _classifier(name: str, config: dict[str, object]) -> AttributeClassifier:
    network = _seeded(name, lambda: build_classifier({**config, "attributes": ATTRIBUTES}))
    info = ScorerInfo(name, "attributes", 1, hash_tensors(network.state_dict()))
    count = len(ATTRIBUTES)
    return AttributeClassifier(
        info, ATTRIBUTES, network, torch.ones(count), torch.zeros(count), IMAGE_SIZE
    )


def _embedder() -> Embedder:
    return Embedder()
