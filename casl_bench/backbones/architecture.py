"""What a published state dict's names and shapes tell of its network.

They tell all but what changes no shape: the image size, the width of an attention head, the order
in which q, k and v are packed, and the noise schedule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from casl_bench.backbones.adm_checkpoint import adm_unet_config
from casl_bench.backbones.ddpm_checkpoint import ddpm_unet_config
from casl_bench.core.errors import InvalidBenchmarkError, UsageError

_SIGNS = {
    "ddpm": ("conv_in.weight", "temb.dense.0.weight", "conv_out.weight"),
    "adm": ("input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight"),
}
_KEYS_TOLD = 6
DEFAULT_HEAD_CHANNELS = 64


@dataclass(frozen=True)
class Architecture:
    """The form of a network of the DDPM or ADM family.

    Attributes:
        family: ddpm or adm.
        in_channels: of the image.
        out_channels: of the output: as many again where a variance is learned.
        base_channels: channels of the first level.
        multipliers: channels of each level, the image's first, over base_channels.
        res_blocks: residual blocks a level.
        attention_levels: levels with attention, 0 = at the image's size.
    """

    family: Literal["ddpm", "adm"]
    in_channels: int
    out_channels: int
    base_channels: int
    multipliers: tuple[int, ...]
    res_blocks: int
    attention_levels: tuple[int, ...]

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
        """Arguments of `UNet2DModel`.

        Args:
            image_size: side of the image, pixels.
            head_channels: channels of an attention head; only for, and needed by, the ADM family.

        Raises:
            UsageError: if the image cannot be halved as often as there are levels, or the heads do
                not divide the channels.
        """
        factor = 2 ** (len(self.multipliers) - 1)
        if image_size % factor or image_size < factor:
            raise UsageError(
                f"an image size of {image_size} cannot be halved {len(self.multipliers) - 1} times",
                mend=f"give a multiple of {factor}",
            )
        if self.family == "ddpm":
            if head_channels is not None:
                raise UsageError("the ddpm family has one attention head: no head channels apply")
            return ddpm_unet_config(
                {
                    "in_channels": self.in_channels,
                    "out_ch": self.out_channels,
                    "ch": self.base_channels,
                    "ch_mult": self.multipliers,
                    "num_res_blocks": self.res_blocks,
                    "attn_resolutions": self.attention_resolutions(image_size),
                },
                image_size,
            )
        if head_channels is None:
            raise UsageError("the adm family needs the channels of an attention head")
        unfit = [c for c in self.attended_channels if c % head_channels]
        if unfit:
            raise UsageError(
                f"heads of {head_channels} channels do not divide attention over {unfit[0]}",
                mend="give the head channels that the network was trained with",
            )
        return adm_unet_config(
            {
                "image_size": image_size,
                "in_channels": self.in_channels,
                "out_channels": self.out_channels,
                "model_channels": self.base_channels,
                "channel_mult": self.multipliers,
                "num_res_blocks": self.res_blocks,
                "num_head_channels": head_channels,
                "attention_resolutions": [2**level for level in self.attention_levels],
            }
        )


def architecture_of(weights: Mapping[str, Tensor], where: str) -> Architecture:
    """Tell a published network's form from its tensors' names and shapes.

    Args:
        weights: the state dict in its authors' names; values are not looked at.
        where: the file, for messages.

    Raises:
        InvalidBenchmarkError: if it is of neither family, takes a class, or has a form that
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
            mend="only unconditional networks can be run",
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
        mend="fetch the file again",
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
        f"a network of this form cannot be run: {what}", where=where, mend="see docs/checkpoints.md"
    )


def _unknown_family(shapes: Mapping[str, Sequence[int]], where: str) -> InvalidBenchmarkError:
    if "conv_in.weight" in shapes and any(name.startswith("down_blocks.") for name in shapes):
        return InvalidBenchmarkError(
            "the tensors have diffusers' names",
            where=where,
            mend="give the folder with its config.json instead of the file",
        )
    names = list(shapes)
    told = ", ".join(names[:_KEYS_TOLD])
    return InvalidBenchmarkError(
        f"neither of the ddpm nor of the adm family: {len(names)} tensors, first {told}",
        where=where,
    )
