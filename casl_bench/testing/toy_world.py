"""A world of sixteen-pixel pictures in which a whole run takes seconds.

Its classifiers and its reader of factors read the attributes off known pixels and are always right;
its U-Net, CLIPs and embedder are untrained, so what methods learn in it means nothing. Every part
has the type, the shapes and the determinism of the real thing. It is not found among the data sets
unless a test calls `register_toy_world`, or a user names a plugin that does.
"""

from __future__ import annotations

import torch
from torch import nn

from casl_bench.backbones.backbone import Backbone
from casl_bench.backbones.clip_model import ClipModel, build_clip
from casl_bench.backbones.diffusers_unet import BackboneConfig, build_unet
from casl_bench.backbones.word_tokenizer import WordTokenizer
from casl_bench.core.content_hash import hash_tensors
from casl_bench.images.dataset import DATASETS
from casl_bench.scorers.attribute_classifier import AttributeClassifier
from casl_bench.scorers.clip_scorer import ClipScorer
from casl_bench.scorers.embedder import EmbedderNet, RenderEmbedder
from casl_bench.scorers.factor_regressor import FactorRegressor
from casl_bench.scorers.scorer import ScorerInfo
from casl_bench.testing.seeded import seeded
from casl_bench.testing.toy_shapes import ATTRIBUTES, CARD, IMAGE_SIZE, ToyShapes
from casl_bench.worlds.options import WorldOptions
from casl_bench.worlds.world import WORLDS, World

_WEIGHTS = "toy weights"

WORDS = ("a", "square", *ATTRIBUTES)
MEAN_STD = (0.5, 0.5, 0.5)
OUTPUT_SCALE = 0.003
LOGIT_SCALE = (8.0, 3.0, 20.0)


def toy_world(device: str = "cpu", options: WorldOptions | None = None) -> World:
    """A new world, equal to every other one, whose networks are nobody else's."""
    return World(
        name=CARD.world,
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


def register_toy_world() -> None:
    """Make the data set `toy_shapes` and its world known by name."""
    DATASETS.register(CARD.name, ToyShapes)
    WORLDS.register(CARD.name, toy_world)


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

    Args:
        name: as in records.
        ground_rows: rows that neither the square nor the stripe ever reaches.
        core: rows and columns that the square always covers.
        stripe_rows: of `toy_shapes.STRIPE_ROWS`, those that are read.
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


def _classifier(name: str, **pixels: tuple[int, ...]) -> AttributeClassifier:
    network = _reader(name, **pixels)
    info = ScorerInfo(name, "attributes", 1, hash_tensors(network.state_dict()))
    scale, bias = torch.tensor(LOGIT_SCALE), torch.zeros(len(ATTRIBUTES))
    return AttributeClassifier(info, ATTRIBUTES, network, scale, bias, IMAGE_SIZE)


def _factors(name: str, **pixels: tuple[int, ...]) -> FactorRegressor:
    network = _reader(name, **pixels)
    info = ScorerInfo(name, "factors", 1, hash_tensors(network.state_dict()))
    scale, bias = torch.tensor(LOGIT_SCALE), torch.zeros(len(ATTRIBUTES))
    return FactorRegressor(info, ATTRIBUTES, ATTRIBUTES, network, scale, bias, IMAGE_SIZE)


def _embedder() -> RenderEmbedder:
    network = seeded(_WEIGHTS, "toy_embedder", lambda: EmbedderNet((8, 8), 8))
    info = ScorerInfo("toy_embedder", "similarity", 1, hash_tensors(network.state_dict()))
    return RenderEmbedder(info, network, IMAGE_SIZE)
