"""What a well-behaved method leaves as it was: weights, hooks, global state, the user's folders."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from casl_bench.backbones.backbone import Backbone, CallCounter, EncoderState
from casl_bench.core.content_hash import hash_tensors

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def weights_of(**owners: Any) -> dict[str, Any]:
    """Content, gradient flags and mode of every network that the owners hold as attributes."""
    found: dict[str, Any] = {}
    for owner, thing in owners.items():
        for attribute, value in vars(thing).items():
            if not isinstance(value, nn.Module):
                continue
            name = f"{owner}.{attribute}"
            found[f"values of {name}"] = hash_tensors(value.state_dict())
            flags = [p.requires_grad for p in value.parameters()]
            found[f"requires_grad of {name}"] = flags
            found[f"training mode of {name}"] = [m.training for m in value.modules()]
    return found


def hooks_of(backbone: Backbone) -> dict[str, Any]:
    """Hooks, replaced modules and overridden functions of a backbone."""
    found: dict[str, Any] = {"attributes of the backbone": sorted(vars(backbone))}
    for name, module in backbone.unet.named_modules():
        hooks = [len(getattr(module, kind, ())) for kind in _HOOKS]
        place = f"unet.{name}" if name else "unet"
        found[f"hooks of {place}"] = hooks
        found[f"identity of {place}"] = (id(module), "forward" in vars(module))
    return found


def global_state() -> dict[str, Any]:
    """State shared by the whole process that a method must neither use up nor switch."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is what is watched
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": (kind, np.asarray(keys).tobytes(), *rest),
        "python's random state": random.getstate(),
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "number of threads": torch.get_num_threads(),
    }


def first_difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The first thing that is not as before, in words; "" where all is."""
    return next((k for k in {**before, **after} if before.get(k) != after.get(k)), "")


@contextmanager
def count_passes() -> Iterator[CallCounter]:
    """Count the passes through every `Backbone`, copies that a method makes for itself included."""
    total = CallCounter()
    encode, decode, whole = Backbone.encode, Backbone.decode, Backbone.eps_with_grad

    def counted_encode(self: Backbone, x_t: Tensor, t: int) -> EncoderState:
        state = encode(self, x_t, t)
        total.encoder += len(x_t)
        return state

    def counted_decode(
        self: Backbone, state: EncoderState, delta_h: Tensor | None = None
    ) -> Tensor:
        eps = decode(self, state, delta_h)
        total.decoder += len(state)
        return eps

    def counted_whole(self: Backbone, x_t: Tensor, t: int) -> Tensor:
        eps = whole(self, x_t, t)
        total.encoder += len(x_t)
        total.decoder += len(x_t)
        return eps

    with (
        patch.object(Backbone, "encode", counted_encode),
        patch.object(Backbone, "eps_with_grad", counted_whole),
        patch.object(Backbone, "decode", counted_decode),
    ):
        yield total


@contextmanager
def elsewhere(folder: Path) -> Iterator[None]:
    """Make a folder the working, home and temporary folder, so that stray files land in it."""
    folder.mkdir(parents=True, exist_ok=True)
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    with (
        chdir(folder),
        patch.dict(os.environ, places),
        patch.object(tempfile, "tempdir", str(folder)),
    ):
        yield


class PlannedFailure(Exception):
    """Thrown by `failing_decoder`."""


@contextmanager
def failing_decoder(backbone: Backbone, at_pass: int) -> Iterator[Callable[[], bool]]:
    """Let the given pass (1 = the first) through the U-Net's output layer fail.

    Yields:
        Tells whether that pass has been reached.
    """
    passes = 0

    def fail(module: nn.Module, inputs: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == at_pass:
            raise PlannedFailure("planned failure in the middle of an edit")

    handle = backbone.unet.conv_out.register_forward_pre_hook(fail)
    try:
        yield lambda: passes >= at_pass
    finally:
        handle.remove()
