"""Invert images once, for every method that edits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from casl_bench.backbones.backbone import Backbone, EncoderState
from casl_bench.core.errors import InputError
from casl_bench.core.micro_batch import row_blocks
from casl_bench.inversion.ddim import ddim_generation, ddim_inversion
from casl_bench.inversion.inversions import Inversions

Collect = Callable[[int, slice, EncoderState], None]
"""(place in the timesteps, rows of the images, their encoder state), during inversion."""


def invert(
    backbone: Backbone,
    ids: Sequence[str],
    x_0: Tensor,
    timesteps: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    collect: Collect | None = None,
    refinements: int = 0,
) -> Inversions:
    """Invert images and regenerate them.

    Args:
        backbone: the noise predictor.
        ids: one id an image.
        x_0: [n, 3, H, W] float32 in [-1, 1].
        timesteps: increasing from 0.
        progress: called with (images done, n) after every micro-batch.
        collect: sees x_t and h at every timestep of the inversion, a micro-batch at a time.
        refinements: see `ddim_inversion`.

    Returns:
        Inversions, on the CPU.

    Raises:
        InputError: for images of the wrong size or range, or ids that do not match them.
    """
    if len(ids) != len(x_0) or len(set(ids)) != len(ids) or not len(x_0):
        raise InputError(f"{len(ids)} ids for {len(x_0)} images: one distinct id an image is asked")
    low, high = float(x_0.min()), float(x_0.max())
    # The tolerance lets resized pictures through, not pictures in [0, 255].
    if not (low >= -1.01 and high <= 1.01):
        raise InputError(f"pixels must lie in [-1, 1], these span [{low:.3g}, {high:.3g}]")
    noise, regenerated = [], []
    for rows in row_blocks(len(x_0), backbone.micro_batch):
        last: EncoderState | None = None

        def on_step(step: int, state: EncoderState, rows: slice = rows) -> None:
            nonlocal last
            last = state
            if collect is not None:
                collect(step, rows, state)

        x_T = ddim_inversion(
            backbone, x_0[rows], timesteps, on_step if collect else None, refinements
        )
        noise.append(x_T.cpu())
        # The last state that was seen is that of x_T.
        regenerated.append(ddim_generation(backbone, x_T, timesteps, encoded=last).cpu())
        if progress is not None:
            progress(rows.stop, len(x_0))
    return Inversions(tuple(ids), tuple(timesteps), x_0, torch.cat(noise), torch.cat(regenerated))
