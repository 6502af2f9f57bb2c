"""Small noise predictors with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from casl_bench.models.backbone import Backbone
from casl_bench.models.unet import BackboneConfig, build_unet

FAMILIES: dict[str, dict[str, Any]] = {
    "ddpm": {
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": None,
        "downsample_padding": 0,
    },
    "adm": {
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "attention_head_dim": 8,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 4,
    },
}


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Backbone]:
    """A 16-pixel backbone of a family; keywords go to its `BackboneConfig`."""

    def make(family: str = "ddpm", seed: int = 0, **settings: Any) -> Backbone:
        patch = settings.get("patch_size", 1)
        channels = 3 * patch**2
        unet = {
            "sample_size": 16 // patch,
            "in_channels": channels,
            "out_channels": channels * (2 if {"learned_sigma", "bands"} & settings.keys() else 1),
            "layers_per_block": 1,
            "block_out_channels": [8, 16],
            "norm_num_groups": 4,
            **FAMILIES[family],
        }
        config = BackboneConfig(
            **{"name": "small", "image_size": 16, "micro_batch": 4, "family": family, "unet": unet}
            | settings
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Backbone(config, build_unet(config.unet))

    return make
