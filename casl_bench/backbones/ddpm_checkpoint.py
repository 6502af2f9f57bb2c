"""Checkpoints of the DDPM family, as diffusers' UNet2DModel.

The family of CelebA-HQ and LSUN-Church at 256 px in SDEdit, DiffusionCLIP and Asyrp (after Ho et
al. 2020): default time embedding, single-head attention, 1x1 convolutions as its projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from casl_bench.backbones.weights import Source, fitted_state

_RESNET_PARTS = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time_emb_proj": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "nin_shortcut",
}
_ATTENTION_PARTS = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_TOP_LEVEL = {
    "time_embedding.linear_1": "temb.dense.0",
    "time_embedding.linear_2": "temb.dense.1",
    "conv_in": "conv_in",
    "conv_norm_out": "norm_out",
    "conv_out": "conv_out",
}
_BLOCK = re.compile(
    r"(down_blocks|up_blocks|mid_block)\.?(\d*)\."
    r"(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)


def ddpm_unet_config(model: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Arguments of `UNet2DModel` for a reference configuration.

    Args:
        model: the `model` section: in_channels, out_ch, ch, ch_mult, num_res_blocks,
            attn_resolutions.
        image_size: side of the image.
    """
    multipliers = model["ch_mult"]
    attention = [image_size // 2**i in model["attn_resolutions"] for i in range(len(multipliers))]
    return {
        "sample_size": image_size,
        "in_channels": model["in_channels"],
        "out_channels": model["out_ch"],
        "layers_per_block": model["num_res_blocks"],
        "block_out_channels": [model["ch"] * m for m in multipliers],
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        "attention_head_dim": None,
        "norm_eps": 1e-6,
        # The reference pads right and below only, then convolves with stride 2.
        "downsample_padding": 0,
        # Sines first, frequencies divided by half - 1.
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    }


def ddpm_state(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The reference's weights under diffusers' names.

    Args:
        weights: the reference's state dict.
        own: state dict of the `UNet2DModel` to fill.
        where: the file, for messages.

    Raises:
        InvalidBenchmarkError: naming what is missing, unexpected, of another shape or not finite.
    """
    levels = 1 + max(int(m[1]) for k in own if (m := re.match(r"down_blocks\.(\d+)\.", k)))
    return fitted_state(own, weights, where, lambda name: _source_of(name, levels))


def _source_of(name: str, levels: int) -> Source:
    module, _, kind = name.rpartition(".")
    if module in _TOP_LEVEL:
        return Source(f"{_TOP_LEVEL[module]}.{kind}")
    match = _BLOCK.fullmatch(module)
    if match is None:
        return Source(name)
    half, level, group, place, part = match.groups()
    if half == "mid_block":
        block = "mid."
        place = str(int(place) + 1)
        resnet, attention = f"block_{place}", f"attn_{place}"
    else:
        # Counted from the image in both halves; diffusers counts the up blocks from the middle.
        depth = int(level) if half == "down_blocks" else levels - 1 - int(level)
        block = f"{half.removesuffix('_blocks')}.{depth}."
        resnet, attention = f"block.{place}", f"attn.{place}"
    if group == "resnets":
        return Source(f"{block}{resnet}.{_RESNET_PARTS.get(part, part)}.{kind}")
    if group == "attentions":
        key = f"{block}{attention}.{_ATTENTION_PARTS.get(part, part)}.{kind}"
        is_convolution = kind == "weight" and part != "group_norm"
        return Source(key, lambda x: x.flatten(1)) if is_convolution else Source(key)
    return Source(f"{block}{group.removesuffix('rs')}.{part}.{kind}")
