"""Published checkpoints of two families: what network they hold, and their weights for diffusers.

DDPM (Ho et al. 2020; CelebA-HQ, LSUN-Church at 256 px) and ADM (Dhariwal & Nichol 2021, improved
DDPM, P2 weighting; AFHQ-Dog and FFHQ at 256 px): scale-shift norm, residual up- and downsampling,
multi-head attention with packed qkv, and a learned variance in the second half of the channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.models.weights import Source, fitted_state

_ADM_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ADM_TOP_LEVEL = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_DDPM_RESNET = {"time_emb_proj": "temb_proj", "conv_shortcut": "nin_shortcut"}
_DDPM_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_DDPM_TOP_LEVEL = {
    "time_embedding.linear_1": "temb.dense.0",
    "time_embedding.linear_2": "temb.dense.1",
    "conv_in": "conv_in",
    "conv_norm_out": "norm_out",
    "conv_out": "conv_out",
}
_DDPM_UNET = {
    "norm_eps": 1e-6,
    # The reference pads right and below only, then convolves with stride 2.
    "downsample_padding": 0,
    # Sines first, frequencies divided by half - 1.
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
_ADM_UNET = {
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    # Without it diffusers leaves the norm of the middle attention out under scale-shift.
    "attn_norm_num_groups": 32,
    "norm_eps": 1e-5,
    # Cosines first, frequencies divided by half.
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
_SIGNS = {
    "ddpm": ("conv_in.weight", "temb.dense.0.weight", "conv_out.weight"),
    "adm": ("input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight"),
}
_KEYS_TOLD = 6
_fitted = partial(fitted_state, hint="fetch the file again or name it as its authors do", told=50)
DEFAULT_HEAD_CHANNELS = 64
_BLOCK = re.compile(
    r"(down_blocks|up_blocks|mid_block)\.?(\d*)\."
    r"(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)


def adm_state(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    where: str,
    head_channels: int,
    new_attention_order: bool = False,
) -> dict[str, Tensor]:
    """The reference's weights under diffusers' names, for the `own` state dict of a `UNet2DModel`.

    `new_attention_order` packs (q, k, v) of all heads rather than, as in the legacy order, (q, k,
    v) head by head. Raises InvalidBenchmarkError naming what is missing, unexpected, of another
    shape or not finite.
    """
    places = _sequence_places(own)
    take = partial(_take_qkv, head_channels=head_channels, new_attention_order=new_attention_order)

    def source_of(name: str) -> Source:
        module, _, kind = name.rpartition(".")
        if module in _ADM_TOP_LEVEL:
            return Source(f"{_ADM_TOP_LEVEL[module]}.{kind}")
        match = _BLOCK.fullmatch(module)
        if match is None:
            return Source(name)
        half, level, group, place, part = match.groups()
        prefix = places[f"{half}.{level}.{group}.{place}"]
        if group != "attentions":
            return Source(f"{prefix}.{_ADM_RESNET.get(part, part)}.{kind}")
        if part == "group_norm":
            return Source(f"{prefix}.norm.{kind}")
        if part == "to_out.0":
            return Source(
                f"{prefix}.proj_out.{kind}",
                (lambda x: x.flatten(1)) if kind == "weight" else (lambda x: x),
            )
        return Source(f"{prefix}.qkv.{kind}", partial(take, which="qkv".index(part[-1])))

    return _fitted(own, weights, where, source_of)


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


def ddpm_state(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The reference's weights under diffusers' names; arguments and errors as `adm_state`."""
    levels = 1 + max(int(m[1]) for k in own if (m := re.match(r"down_blocks\.(\d+)\.", k)))
    return _fitted(own, weights, where, lambda name: _source_of(name, levels))


def _source_of(name: str, levels: int) -> Source:
    module, _, kind = name.rpartition(".")
    if module in _DDPM_TOP_LEVEL:
        return Source(f"{_DDPM_TOP_LEVEL[module]}.{kind}")
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
        return Source(f"{block}{resnet}.{_DDPM_RESNET.get(part, part)}.{kind}")
    if group == "attentions":
        key = f"{block}{attention}.{_DDPM_ATTENTION.get(part, part)}.{kind}"
        is_convolution = kind == "weight" and part != "group_norm"
        return Source(key, lambda x: x.flatten(1)) if is_convolution else Source(key)
    return Source(f"{block}{group.removesuffix('rs')}.{part}.{kind}")


@dataclass(frozen=True)
class Architecture:
    """The form of a network of the DDPM or ADM family."""

    family: Literal["ddpm", "adm"]
    in_channels: int  # of the image
    out_channels: int  # of the output: as many again where a variance is learned
    base_channels: int  # channels of the first level
    multipliers: tuple[int, ...]  # channels of each level, the image's first, over base_channels
    res_blocks: int  # residual blocks a level
    attention_levels: tuple[int, ...]  # levels with attention, 0 = at the image's size

    @property
    def learned_sigma(self) -> bool:
        """The second half of the output is a variance."""
        return self.out_channels == 2 * self.in_channels

    @property
    def mid_channels(self) -> int:
        """C of h-space."""
        return self.base_channels * self.multipliers[-1]

    @property
    def attended_channels(self) -> tuple[int, ...]:
        """Channels wherever there is attention; the middle always has it."""
        levels = {self.base_channels * self.multipliers[level] for level in self.attention_levels}
        return tuple(sorted({self.mid_channels, *levels}))

    def default_head_channels(self) -> int:
        """64, or the narrowest attention where that is narrower."""
        return min(DEFAULT_HEAD_CHANNELS, self.attended_channels[0])

    def attention_resolutions(self, image_size: int) -> tuple[int, ...]:
        """Sides of the feature maps with attention, pixels."""
        return tuple(image_size // 2**level for level in self.attention_levels)

    def unet_config(self, image_size: int, head_channels: int | None = None) -> dict[str, Any]:
        """Arguments of `UNet2DModel`; head_channels are for, and needed by, the ADM family only.

        Raises UsageError if the image cannot be halved as often as there are levels, or the heads
        do not divide the channels.
        """
        factor = 2 ** (len(self.multipliers) - 1)
        if image_size % factor or image_size < factor:
            raise UsageError(
                f"an image size of {image_size} cannot be halved {len(self.multipliers) - 1} times",
                hint=f"give a multiple of {factor}",
            )
        if self.family == "ddpm" and head_channels is not None:
            raise UsageError("the ddpm family has one attention head: no head channels apply")
        if self.family == "adm" and head_channels is None:
            raise UsageError("the adm family needs the channels of an attention head")
        unfit = [c for c in self.attended_channels if c % (head_channels or 1)]
        if unfit:
            raise UsageError(
                f"heads of {head_channels} channels do not divide attention over {unfit[0]}",
                hint="give the head channels that the network was trained with",
            )
        ddpm = self.family == "ddpm"
        down, up = ("Down", "Up") if ddpm else ("ResnetDownsample", "ResnetUpsample")
        attention = [level in self.attention_levels for level in range(len(self.multipliers))]
        return {
            "sample_size": image_size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "layers_per_block": self.res_blocks,
            "block_out_channels": [self.base_channels * m for m in self.multipliers],
            "down_block_types": [f"{'AttnDown' if a else down}Block2D" for a in attention],
            "up_block_types": [f"{'AttnUp' if a else up}Block2D" for a in reversed(attention)],
            "attention_head_dim": head_channels,
            **(_DDPM_UNET if ddpm else _ADM_UNET),
        }


def architecture_of(weights: Mapping[str, Tensor], where: str) -> Architecture:
    """Tell a published network's form from its tensors' names and shapes.

    Raises InvalidBenchmarkError if it is of neither family, takes a class, or has a form that
    cannot be run here.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    families = [f for f, signs in _SIGNS.items() if all(sign in shapes for sign in signs)]
    if not families:
        raise _unknown_family(shapes, where)
    if "label_emb.weight" in shapes:
        raise InvalidBenchmarkError(
            "the network takes a class (label_emb.weight)",
            where=where,
            hint="only unconditional networks can be run",
        )
    try:
        return _ddpm(shapes, where) if families[0] == "ddpm" else _adm(shapes, where)
    except KeyError as error:
        fault = f"it lacks {error.args[0]}"
    except (IndexError, ValueError, ArithmeticError):
        fault = "a tensor has an impossible shape"
    raise InvalidBenchmarkError(
        f"the {families[0]} network is not complete: {fault}",
        where=where,
        hint="fetch the file again",
    )


def _ddpm(shapes: Mapping[str, Sequence[int]], where: str) -> Architecture:
    levels = _count(shapes, "down.", ".block.0.")
    base, in_channels = shapes["conv_in.weight"][:2]
    return Architecture(
        family="ddpm",
        in_channels=in_channels,
        out_channels=shapes["conv_out.weight"][0],
        base_channels=base,
        multipliers=_multipliers(
            base, [shapes[f"down.{i}.block.0.conv1.weight"][0] for i in range(levels)], where
        ),
        res_blocks=_count(shapes, "down.0.block.", "."),
        attention_levels=tuple(i for i in range(levels) if f"down.{i}.attn.0.q.weight" in shapes),
    )


def _adm(shapes: Mapping[str, Sequence[int]], where: str) -> Architecture:
    if any(re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name) for name in shapes):
        raise _not_run("up- and downsampling without residual blocks (resblock_updown off)", where)
    out, emb = (
        shapes["input_blocks.1.0.out_layers.3.weight"],
        shapes["input_blocks.1.0.emb_layers.1.weight"],
    )
    if emb[0] != 2 * out[0]:
        raise _not_run("no scale-shift norm (use_scale_shift_norm off)", where)
    # Downsampling blocks look like any other; an upsampling one stands second or third in the
    # output block that closes its level.
    upsamplers = {
        int(m[1])
        for name in shapes
        if (m := re.fullmatch(r"output_blocks\.(\d+)\.[12]\.in_layers\.0\.weight", name))
    }
    blocks = _count(shapes, "output_blocks.", ".0.")
    levels = len(upsamplers) + 1
    a_level = blocks // levels
    if blocks % levels or upsamplers != {(i + 1) * a_level - 1 for i in range(levels - 1)}:
        raise _not_run(f"{blocks} output blocks that are no {levels} equal levels", where)
    base, in_channels = shapes["input_blocks.0.0.weight"][:2]
    # The first input block is a convolution; each level then has its residual blocks and, but for
    # the last, a downsampling one.
    firsts = [1 + level * a_level for level in range(levels)]
    return Architecture(
        family="adm",
        in_channels=in_channels,
        out_channels=shapes["out.2.weight"][0],
        base_channels=base,
        multipliers=_multipliers(
            base, [shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts], where
        ),
        res_blocks=a_level - 1,
        attention_levels=tuple(
            level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in shapes
        ),
    )


def _multipliers(base: int, channels: Sequence[int], where: str) -> tuple[int, ...]:
    """Channels of each level over those of the first convolution, which the first level keeps."""
    if channels and (channels[0] != base or any(c % base for c in channels)):
        raise _not_run(f"levels of {list(channels)} channels after a convolution of {base}", where)
    return tuple(c // base for c in channels)


def _count(shapes: Mapping[str, Sequence[int]], start: str, end: str) -> int:
    """One more than the highest number between the two at the beginning of a name."""
    pattern = re.compile(re.escape(start) + r"(\d+)" + re.escape(end))
    numbers = [int(m[1]) for name in shapes if (m := pattern.match(name))]
    if not numbers:
        raise KeyError(f"{start}0{end}")
    return 1 + max(numbers)


def _not_run(what: str, where: str) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(
        f"a network of this form cannot be run: {what}", where=where, hint="see docs/checkpoints.md"
    )


def _unknown_family(shapes: Mapping[str, Sequence[int]], where: str) -> InvalidBenchmarkError:
    if "conv_in.weight" in shapes and any(name.startswith("down_blocks.") for name in shapes):
        return InvalidBenchmarkError(
            "the tensors have diffusers' names",
            where=where,
            hint="give the folder with its config.json instead of the file",
        )
    names = list(shapes)
    told = ", ".join(names[:_KEYS_TOLD])
    return InvalidBenchmarkError(
        f"neither of the ddpm nor of the adm family: {len(names)} tensors, first {told}",
        where=where,
        hint="docs/checkpoints.md says which networks can be run",
    )
