"""How a frozen U-Net is run: its memory format, the precision of its passes, compiled or not.

One explicit setting of a run, never a choice by measured speed: what pays depends on how busy a
machine is, and a number must not. Whatever is not the reference changes bits, so it enters the
identity of the backbone, and with it every key and record.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from casl_bench.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d import UNet2DModel

REFERENCE = "reference"
_COMPILERS = ("g++", "clang++", "c++", "cl")
_COMPILE_OPTIONS = {"mode": "reduce-overhead", "dynamic": False}
"""Of `torch.compile`: CUDA graphs where there is CUDA. Micro-batches have one shape."""


class Kernels(BaseModel):
    """What differs from the reference: contiguous float32 tensors, kernels as they come.

    Attributes:
        channels_last: weights and activations lie NHWC in memory.
        bf16: passes run under autocast to bfloat16; weights, states and eps stay float32.
        compiled: blocks are compiled by `torch.compile`. Passes that are back-propagated and
            fine-tuned copies run as written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False

    @classmethod
    def parse(cls, text: str) -> Kernels:
        """Kernels by name: "reference", or others joined by commas.

        Raises:
            UsageError: on an unknown name, or "reference" beside another.
        """
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in (REFERENCE, *cls.model_fields):
                error = unknown_name("kernels", name, (REFERENCE, *cls.model_fields))
                raise UsageError(error.what, where="--kernels", mend=error.mend)
        if REFERENCE in names and len(set(names)) > 1:
            raise UsageError(
                f"'{REFERENCE}' is none of the others", where="--kernels", mend="leave it out"
            )
        return cls(**{name: True for name in names if name != REFERENCE})

    def __str__(self) -> str:
        return ",".join(name for name, on in self if on) or REFERENCE

    @property
    def is_reference(self) -> bool:
        """Whether nothing differs."""
        return self == Kernels()

    def check(self, device: str) -> None:
        """Refuse what this machine cannot do.

        Args:
            device: a torch device, resolved.

        Raises:
            UsageError: with what to leave out.
        """
        kind = device.split(":")[0]
        if self.bf16 and kind == "cuda":
            import torch

            if not torch.cuda.is_bf16_supported(including_emulation=False):
                raise _refusal("bf16", f"{device} has no bfloat16 arithmetic")
        if self.compiled and kind == "mps":
            raise _refusal("compiled", "CUDA graphs are of CUDA, and mps has no compiler here")
        if self.compiled and not has_cpp_compiler():
            raise _refusal("compiled", "torch.compile needs a C++ compiler, and there is none")

    def apply(self, unet: UNet2DModel) -> None:
        """Lay out and compile a network in place; precision is a matter of each pass."""
        import torch

        if self.channels_last:
            unet.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        if self.compiled:
            # The first and last convolution stay as they are: passes are counted by their hooks.
            for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
                block.compile(**_COMPILE_OPTIONS)


def has_cpp_compiler() -> bool:
    """Whether there is one that `torch.compile` could use."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((named,) if named else _COMPILERS))


def _refusal(name: str, reason: str) -> UsageError:
    return UsageError(reason, where=f"--kernels {name}", mend=f"leave '{name}' out")
