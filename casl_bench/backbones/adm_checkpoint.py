"""Checkpoints of the ADM family, as diffusers' UNet2DModel.

The family of AFHQ-Dog and FFHQ at 256 px (Dhariwal & Nichol 2021, improved DDPM, P2 weighting):
scale-shift norm, residual up- and downsampling, multi-head attention with packed qkv, and a
learned variance in the second half of the output channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from casl_bench.backbones.weights import Source, fitted_state

_RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP_LEVEL = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(
    r"(down_blocks|up_blocks|mid_block)\.?(\d*)\."
    r"(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)


def adm_unet_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `UNet2DModel` for a reference configuration.

    Args:
        model: image_size, in_channels, model_channels, out_channels, num_res_blocks,
            channel_mult, num_head_channels, attention_resolutions (as downsampling factors).
    """
    multipliers = model["channel_mult"]
    attention = [2**i in model["attention_resolutions"] for i in range(len(multipliers))]
    down = ["AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attention]
    up = ["AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attention)]
    return {
        "sample_size": model["image_size"],
        "in_channels": model["in_channels"],
        "out_channels": model["out_channels"],
        "layers_per_block": model["num_res_blocks"],
        "block_out_channels": [model["model_channels"] * m for m in multipliers],
        "down_block_types": down,
        "up_block_types": up,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": model["num_head_channels"],
        # Without it diffusers leaves the norm of the middle attention out under scale-shift.
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        # Cosines first, frequencies divided by half.
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def adm_state(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    where: str,
    head_channels: int,
    new_attention_order: bool = False,
) -> dict[str, Tensor]:
    """The reference's weights under diffusers' names.

    Args:
        weights: the reference's state dict.
        own: state dict of the `UNet2DModel` to fill.
        where: the file, for messages.
        head_channels: channels of an attention head.
        new_attention_order: packed as (q, k, v) of all heads rather than, as in the legacy order,
            (q, k, v) head by head.

    Raises:
        InvalidBenchmarkError: naming what is missing, unexpected, of another shape or not finite.
    """
    places = _sequence_places(own)
    take = partial(_take_qkv, head_channels=head_channels, new_attention_order=new_attention_order)

    def source_of(name: str) -> Source:
        module, _, kind = name.rpartition(".")
        if module in _TOP_LEVEL:
            return Source(f"{_TOP_LEVEL[module]}.{kind}")
        match = _BLOCK.fullmatch(module)
        if match is None:
            return Source(name)
        half, level, group, place, part = match.groups()
        prefix = places[f"{half}.{level}.{group}.{place}"]
        if group != "attentions":
            return Source(f"{prefix}.{_RESNET_PARTS.get(part, part)}.{kind}")
        if part == "group_norm":
            return Source(f"{prefix}.norm.{kind}")
        if part == "to_out.0":
            return Source(
                f"{prefix}.proj_out.{kind}",
                (lambda x: x.flatten(1)) if kind == "weight" else (lambda x: x),
            )
        return Source(f"{prefix}.qkv.{kind}", partial(take, which="qkv".index(part[-1])))

    return fitted_state(own, weights, where, source_of)


def _sequence_places(own: Mapping[str, Tensor]) -> dict[str, str]:
    """From diffusers' half.level.group.place to the block in the reference's running sequence."""
    present = {
        ".".join(match.groups()[:4]) for name in own if (match := _BLOCK.match(name)) is not None
    }
    places = {
        "mid_block..resnets.0": "middle_block.0",
        "mid_block..attentions.0": "middle_block.1",
        "mid_block..resnets.1": "middle_block.2",
    }
    for half, sequence, resampler in (
        ("down_blocks", "input_blocks", "downsamplers"),
        ("up_blocks", "output_blocks", "upsamplers"),
    ):
        # input_blocks.0 is the first convolution.
        index = 1 if half == "down_blocks" else 0
        level = 0
        while f"{half}.{level}.resnets.0" in present:
            place = 0
            while f"{half}.{level}.resnets.{place}" in present:
                places[f"{half}.{level}.resnets.{place}"] = f"{sequence}.{index}.0"
                attended = f"{half}.{level}.attentions.{place}" in present
                if attended:
                    places[f"{half}.{level}.attentions.{place}"] = f"{sequence}.{index}.1"
                index += 1
                place += 1
            if f"{half}.{level}.{resampler}.0" in present:
                if half == "down_blocks":
                    places[f"{half}.{level}.{resampler}.0"] = f"{sequence}.{index}.0"
                    index += 1
                else:
                    # An upsampler closes the block of the level's last resnet.
                    places[f"{half}.{level}.{resampler}.0"] = (
                        f"{sequence}.{index - 1}.{2 if attended else 1}"
                    )
            level += 1
    return places


def _take_qkv(packed: Tensor, which: int, head_channels: int, new_attention_order: bool) -> Tensor:
    """q, k or v (which = 0, 1, 2) of all heads: [C, C] of [3C, C, 1], or [C] of [3C]."""
    if new_attention_order:
        part = packed.chunk(3)[which]
    else:
        part = packed.unflatten(0, (-1, 3, head_channels))[:, which].flatten(0, 1)
    return part.flatten(1) if part.ndim > 1 else part
