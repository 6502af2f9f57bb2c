"""diffusers' UNet2DModel, cut at its mid block, and the folder that it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, first_fault
from casl_bench.core.files import regular, write_bytes, write_json
from casl_bench.models.noise_schedule import NoiseSchedule
from casl_bench.models.weights import fitted_state, read_safetensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "unet.safetensors"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleConfig(_Frozen):
    """A beta schedule, its kinds named as in diffusers; the cosine has no use for beta_*."""

    kind: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    num_timesteps: int = Field(1000, ge=2)
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
    image_size: int = Field(ge=1)  # side of the square image, pixels
    # The network sees images pixel-unshuffled by this factor; 1 = as they are
    patch_size: int = Field(1, ge=1)
    prediction: Literal["eps", "v", "x0"] = "eps"  # what the network's output means
    # The second half of the output channels is a variance and is dropped
    learned_sigma: bool = False
    # The form of its blocks, and so of an Asyrp delta-block that fits it
    family: Literal["ddpm", "adm"] = "ddpm"
    schedule: ScheduleConfig = ScheduleConfig()
    micro_batch: int = Field(8, ge=1)  # rows of every forward pass (`models.micro_batch`)
    unet: dict[str, Any]  # keyword arguments of `UNet2DModel`


def build_unet(config: Mapping[str, Any]) -> UNet2DModel:
    """An untrained U-Net in evaluation mode, from keyword arguments of `UNet2DModel`.

    Raises InvalidBenchmarkError for arguments that diffusers refuses or that have no mid block,
    take a class, or scale inputs or outputs, which the cut below does not cover.
    """
    try:
        unet: UNet2DModel = UNet2DModel(**config)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidBenchmarkError(f"no U-Net can be built from this config: {error}") from error
    plain = (
        unet.mid_block is not None
        and unet.class_embedding is None
        and unet.config.time_embedding_type == "positional"
        and not unet.config.center_input_sample
        and not any(hasattr(block, "skip_conv") for block in (*unet.down_blocks, *unet.up_blocks))
    )
    if not plain:
        raise InvalidBenchmarkError(
            "this kind of UNet2DModel is not supported",
            hint="use positional time embedding, a mid block, no class and no skip convolutions",
        )
    unet.eval()
    return unet


def filled_unet(
    config: Mapping[str, Any], state_for: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
) -> UNet2DModel:
    """A U-Net with given weights, made without drawing random ones first.

    `state_for` maps the network's own state dict (names, shapes, precision; no values) to the one
    that fills it.
    """
    with torch.device("meta"):
        unet = build_unet(config)
    unet.load_state_dict(state_for(unet.state_dict()), assign=True)
    return unet


def time_embedding(unet: UNet2DModel, t: int, count: int) -> Tensor:
    """[count, D]: the embedding of timestep t, once a row."""
    device = next(unet.parameters()).device
    steps = torch.full((count,), t, dtype=torch.long, device=device)
    embedding: Tensor = unet.time_embedding(unet.time_proj(steps).to(unet.dtype))
    return embedding


def encoder_half(
    unet: UNet2DModel, sample: Tensor, t: int
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """conv_in, the down blocks and the mid block, of [n, in_channels, H, W] at one timestep.

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
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    hint = "fetch or train the backbone again"
    try:
        config = BackboneConfig.model_validate_json(regular(config_path).read_text("utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidBenchmarkError(
            f"unreadable backbone config: {reason}", where=str(config_path), hint=hint
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else "not UTF-8 text"
        raise InvalidBenchmarkError(
            f"invalid backbone config: {fault}", where=str(config_path), hint=hint
        ) from error
    weights = read_safetensors(weights_path)
    return config, filled_unet(
        config.unet, lambda own: fitted_state(own, weights, str(weights_path))
    )


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
