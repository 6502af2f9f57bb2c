"""Golden tensors, and networks filled with the weights that made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diffusers.models.unets.unet_2d import UNet2DModel
from safetensors.torch import load_file
from torch import Tensor

from casl_bench.methods.delta_block import DeltaBlock, delta_block_from_state
from casl_bench.models.backbone import Backbone
from casl_bench.models.unet import BackboneConfig, filled_unet
from casl_bench.models.weights import read_content
from casl_bench.photos.checkpoints.formats import Architecture, adm_state, ddpm_state

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"


@pytest.fixture(scope="session")
def golden_path() -> Callable[[str], Path]:
    """A path under the golden folder; the test is skipped where it is absent."""

    def path_of(name: str) -> Path:
        path = GOLDEN / name
        if not path.exists():
            pytest.skip(f"{path} is absent")
        return path

    return path_of


@dataclass(frozen=True)
class Reference:
    """What one family's reference implementation computed, and its weights.

    Attributes:
        family: ddpm or adm.
        config: the golden folder's config.json.
        weights: the authors' state dict.
        tensors: what the reference computed.
        blocks: the two delta-blocks.
    """

    family: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    blocks: tuple[DeltaBlock, DeltaBlock]

    def unet_config(self) -> dict[str, Any]:
        model = self.config["config"]
        if self.family == "ddpm":
            model, size = model["model"], model["data"]["image_size"]
            levels = range(len(model["ch_mult"]))
            return Architecture(
                "ddpm", model["in_channels"], model["out_ch"], model["ch"],
                tuple(model["ch_mult"]), model["num_res_blocks"],
                tuple(i for i in levels if size // 2**i in model["attn_resolutions"]),
            ).unet_config(size)  # fmt: skip
        levels = range(len(model["channel_mult"]))
        return Architecture(
            "adm", model["in_channels"], model["out_channels"], model["model_channels"],
            tuple(model["channel_mult"]), model["num_res_blocks"],
            tuple(i for i in levels if 2**i in model["attention_resolutions"]),
        ).unet_config(model["image_size"], model["num_head_channels"])  # fmt: skip

    def unet(self, **changes: Any) -> UNet2DModel:
        """The U-Net with the reference's weights; `changes` are faults planted in its config."""
        return filled_unet(self.unet_config() | changes, self.state)

    def state(self, own: Any, **changes: Any) -> dict[str, Tensor]:
        if self.family == "ddpm":
            return ddpm_state(self.weights, own, "unet.pt")
        model = self.config["config"]
        settings = {
            "head_channels": model["num_head_channels"],
            "new_attention_order": model["use_new_attention_order"],
        }
        return adm_state(self.weights, own, "unet.pt", **settings | changes)

    def backbone(self, unet: UNet2DModel | None = None) -> Backbone:
        config = BackboneConfig(
            name=f"golden_{self.family}",
            image_size=32,
            family="ddpm" if self.family == "ddpm" else "adm",
            learned_sigma=self.family == "adm",
            micro_batch=2,
            unet=self.unet_config(),
        )
        return Backbone(config, unet or self.unet())


@pytest.fixture(scope="session")
def load_reference(golden_path: Callable[[str], Path]) -> Callable[[str], Reference]:
    """The reference of a family."""

    def load(family: str) -> Reference:
        folder = golden_path(family)
        tensors = load_file(folder / "delta_blocks.safetensors")
        blocks = []
        for i in range(2):
            prefix = f"layer_{i}."
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            blocks.append(delta_block_from_state(state))
        return Reference(
            family,
            json.loads((folder / "config.json").read_text()),
            read_content(folder / "unet.pt"),
            load_file(folder / "tensors.safetensors"),
            (blocks[0], blocks[1]),
        )

    return load
