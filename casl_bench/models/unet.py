"""diffusers' UNet2DModel, cut at its mid block, and the folder that it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import read_checked, write_bytes, write_json
from casl_bench.models.band_codec import BandStatistics
from casl_bench.models.noise_schedule import NoiseSchedule
from casl_bench.models.weights import (
    AGAIN,
    CANNOT_BUILD,
    check_description,
    fitted_state,
    read_checkpoint,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "unet.safetensors"
MOST_PIXELS = 4096
"""Side of an image."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleConfig(_Frozen):
    """A beta schedule, its kinds named as in diffusers; the cosine has no use for beta_*."""

    kind: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    num_timesteps: int = Field(1000, ge=2, le=100_000)
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)

    def build(self) -> NoiseSchedule:
        """The schedule itself."""
        if self.kind == "squaredcos_cap_v2":
            return NoiseSchedule.cosine(self.num_timesteps)
        kinds = {"linear": NoiseSchedule.linear, "scaled_linear": NoiseSchedule.scaled_linear}
        return kinds[self.kind](self.num_timesteps, self.beta_start, self.beta_end)


class BackboneConfig(_Frozen):
    """All that is needed, beside the weights, to run a noise predictor."""

    name: str  # as in a table
    image_size: int = Field(ge=1, le=MOST_PIXELS)  # side of the square image, pixels
    # The network sees images pixel-unshuffled by this factor; 1 = as they are
    patch_size: int = Field(1, ge=1, le=64)
    # The network sees the cosine bands of the patches, preconditioned (`band_codec`)
    bands: BandStatistics | None = None
    prediction: Literal["eps", "v", "x0"] = "eps"  # what the network's output means
    # The second half of the output channels is a variance and is dropped
    learned_sigma: bool = False
    # The form of its blocks, and so of an Asyrp delta-block that fits it
    family: Literal["ddpm", "adm"] = "ddpm"
    schedule: ScheduleConfig = ScheduleConfig()
    micro_batch: int = Field(8, ge=1, le=65_536)  # rows of every pass (`models.micro_batch`)
    unet: dict[str, Any]  # keyword arguments of `UNet2DModel`

    @model_validator(mode="after")
    def _fits_the_network(self) -> BackboneConfig:
        channels, widths = 3 * self.patch_size**2, self.unet.get("block_out_channels")
        halvings = len(widths) - 1 if isinstance(widths, list | tuple) else 0
        inputs, outputs = (self.unet.get(f"{part}_channels", 3) for part in ("in", "out"))
        if self.image_size % (self.patch_size * 2**halvings):
            told = f"{self.image_size} pixels cannot be halved {halvings} times"
            raise ValueError(f"{told}, in patches of {self.patch_size}")
        double = self.learned_sigma or self.bands is not None  # a variance, or gates, beside
        if inputs != channels or outputs != (2 if double else 1) * channels:
            raise ValueError(
                f"a network from {inputs!r} to {outputs!r} channels, where images in patches of "
                f"{self.patch_size} have {channels}, learned_sigma is {self.learned_sigma} and "
                f"bands are {'absent' if self.bands is None else 'there'}"
            )
        if self.bands is not None and (
            self.prediction != "v" or self.learned_sigma or len(self.bands.std) != channels
        ):
            raise ValueError(f"bands need a prediction of v, no learned sigma, {channels} rows")
        return self


def build_unet(config: Mapping[str, Any], where: str = "") -> UNet2DModel:
    """An untrained U-Net in evaluation mode, from keyword arguments of `UNet2DModel`.

    Raises InvalidBenchmarkError for arguments that diffusers refuses or that have no mid block,
    take a class, or scale inputs or outputs, which the cut below does not cover.
    """
    check_description(config, where)
    try:
        unet: UNet2DModel = UNet2DModel(**config)
    except CANNOT_BUILD as error:
        line = " ".join(str(error).split())
        raise InvalidBenchmarkError(
            f"no U-Net can be built from this config: {line}", where=where, hint=AGAIN
        ) from error
    told: Any = unet.config
    for field, fault in {
        "mid_block_type": unet.mid_block is None,
        "class_embed_type": told.class_embed_type is not None,
        "num_class_embeds": told.num_class_embeds is not None,
        "time_embedding_type": told.time_embedding_type != "positional",
        "center_input_sample": told.center_input_sample,
        "down_block_types": any("Skip" in kind for kind in told.down_block_types),
        "up_block_types": any("Skip" in kind for kind in told.up_block_types),
    }.items():
        if fault:
            raise InvalidBenchmarkError(
                f"{field} {told[field]} is not supported",
                where=where,
                hint="take a network with a positional time embedding and a mid block, without "
                "class, centred input or skip convolutions",
            )
    unet.eval()
    return unet


def filled_unet(
    config: Mapping[str, Any],
    state_for: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    where: str = "",
) -> UNet2DModel:
    """A U-Net with given weights, made without drawing random ones first.

    `state_for` maps the network's own state dict (names, shapes, precision; no values) to the one
    that fills it; `where` the config comes from is for messages.
    """
    with torch.device("meta"):
        unet = build_unet(config, where)
    unet.load_state_dict(state_for(unet.state_dict()), assign=True)
    return unet


def time_embedding(unet: UNet2DModel, t: int | Tensor, count: int) -> Tensor:
    """[count, D]: the embedding of timestep t, one for all rows or [count]."""
    device = next(unet.parameters()).device
    steps = torch.as_tensor(t, dtype=torch.long, device=device).expand(count)
    embedding: Tensor = unet.time_embedding(unet.time_proj(steps).to(unet.dtype))
    return embedding


def encoder_half(
    unet: UNet2DModel, sample: Tensor, t: int | Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """conv_in, the down blocks and the mid block, of [n, in_channels, H, W] at t, one or [n].

    Returns h [n, C, h, w], the mid block's output; the time embedding [n, D]; the skip connections.
    """
    temb = time_embedding(unet, t, len(sample))
    hidden = unet.conv_in(sample)
    skips: tuple[Tensor, ...] = (hidden,)
    for block in unet.down_blocks:
        hidden, block_skips = block(hidden_states=hidden, temb=temb)
        skips += tuple(block_skips)
    assert unet.mid_block is not None, "build_unet refuses networks without a mid block"
    return unet.mid_block(hidden, temb), temb, skips


def decoder_half(unet: UNet2DModel, h: Tensor, temb: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
    """The up blocks and the output convolution: [n, out_channels, H, W]."""
    hidden = h
    for block in unet.up_blocks:
        used = len(cast(Sized, block.resnets))
        hidden = block(hidden, skips[-used:], temb)
        skips = skips[:-used]
    output: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    return output


def load_folder(folder: Path) -> tuple[BackboneConfig, UNet2DModel]:
    """Config and float32 U-Net of a backbone folder.

    Raises InvalidBenchmarkError if a file is absent, truncated or does not fit the other.
    """
    path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    config = read_checked(BackboneConfig, path, "backbone config", AGAIN)
    weights = read_checkpoint(weights_path).weights
    unet = filled_unet(
        config.unet, lambda own: fitted_state(own, weights, str(weights_path)), str(path)
    )
    return config, unet


def save_folder(
    folder: Path, config: BackboneConfig, unet: UNet2DModel, dtype: torch.dtype = torch.float16
) -> None:
    """Write a backbone folder, each file complete or absent; config holds the U-Net's arguments.

    Half precision costs a relative 5e-4 a weight. Raises UsageError where the folder cannot be
    written.
    """
    weights = {k: v.detach().to("cpu", dtype).contiguous() for k, v in unet.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, save(weights))
    write_json(folder / CONFIG_FILE, config.model_dump())
