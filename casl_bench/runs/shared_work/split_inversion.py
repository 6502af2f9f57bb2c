"""Invert a split part by part, so that an interruption costs one part and not hours.

A part is as many images as one file of the trajectories holds, in whole micro-batches: at 256
pixels and 40 steps eight images, at 64 pixels the whole of a suite's split. Parts change no number,
since the backbone's micro-batches are the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from casl_bench.activations.sharded_array import images_per_shard
from casl_bench.activations.trajectory_store import TrajectoryStore
from casl_bench.backbones.backbone import Backbone, EncoderState
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.micro_batch import row_blocks
from casl_bench.images.dataset import ImageBatch
from casl_bench.inversion.inversions import Inversions
from casl_bench.inversion.inverter import invert
from casl_bench.inversion.stored_inversions import read_inversions, write_inversions
from casl_bench.runs.watching.progress import Advance

_PART = "part-*.safetensors"


def images_per_part(backbone: Backbone, steps: int) -> int:
    """Images of one part, a multiple of the micro-batch."""
    images = images_per_shard(steps, (3, backbone.image_size, backbone.image_size))
    return -(-images // backbone.micro_batch) * backbone.micro_batch


def invert_in_parts(
    backbone: Backbone,
    batch: ImageBatch,
    timesteps: Sequence[int],
    refinements: int,
    *,
    folder: Path,
    store: TrajectoryStore | None = None,
    size: int | None = None,
    advance: Advance = lambda count: None,
) -> Inversions:
    """`invert` for the images of a split; parts that an interrupted call finished are read.

    Args:
        backbone: the noise predictor.
        batch: the images.
        timesteps: increasing from 0.
        refinements: see `ddim_inversion`.
        folder: where finished parts are kept until `forget_parts`.
        store: is given x_t and h of every timestep.
        size: images a part; None leaves it to `images_per_part`.
        advance: called with the number of images that are done.

    Raises:
        UsageError: where the folder cannot be written.
    """
    size = size or images_per_part(backbone, len(timesteps))
    parts = []
    for rows in row_blocks(len(batch), size):
        images = batch.take(range(rows.start, rows.stop))
        path = folder / _PART.replace("*", f"{rows.start:05d}-{rows.stop:05d}")
        part = _finished(path, images, timesteps, rows, store)
        if part is not None:
            advance(len(images))
        else:
            part = _invert_part(backbone, images, timesteps, refinements, rows, store, advance)
            if len(images) < len(batch):
                if store is not None:
                    store.sync(rows)  # the part's file says that these rows are complete
                write_inversions(path, part)
        parts.append(part)
    return Inversions(
        batch.image_ids,
        tuple(timesteps),
        batch.pixels,
        # Contiguous, as they come back from the file: a memory layout, too, may change bits.
        torch.cat([p.x_T for p in parts]).contiguous(),
        torch.cat([p.reconstruction for p in parts]).contiguous(),
    )


def any_parts(folder: Path) -> bool:
    """Whether an interrupted call left finished parts."""
    return any(folder.glob(_PART))


def forget_parts(folder: Path) -> None:
    """Delete the parts, once the whole is stored."""
    for path in folder.glob(_PART):
        path.unlink(missing_ok=True)


def _finished(
    path: Path,
    images: ImageBatch,
    timesteps: Sequence[int],
    rows: slice,
    store: TrajectoryStore | None,
) -> Inversions | None:
    """A part that was finished before; None where there is none or it is damaged."""
    if not path.exists() or (store is not None and not store.holds(rows)):
        return None
    try:
        return read_inversions(path, images.image_ids, timesteps, images.pixels)
    except InvalidBenchmarkError:
        return None


def _invert_part(
    backbone: Backbone,
    images: ImageBatch,
    timesteps: Sequence[int],
    refinements: int,
    rows: slice,
    store: TrajectoryStore | None,
    advance: Advance,
) -> Inversions:
    done = 0

    def show(count: int, total: int) -> None:
        nonlocal done
        advance(count - done)
        done = count

    def collect(step: int, within: slice, state: EncoderState) -> None:
        assert store is not None
        store.record(step, slice(rows.start + within.start, rows.start + within.stop), state)

    return invert(
        backbone,
        images.image_ids,
        images.pixels,
        timesteps,
        progress=show,
        collect=None if store is None else collect,
        refinements=refinements,
    )
