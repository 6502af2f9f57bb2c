"""Images inverted once for every method that edits them, part by part, and kept in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_bytes, write_bytes
from casl_bench.diffusion.ddim import ddim_generation, ddim_inversion
from casl_bench.diffusion.sharded_array import images_per_shard
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import ImageBatch
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.micro_batch import row_blocks
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.weights import read_tensors

_PART = "part-*.safetensors"


@dataclass(frozen=True)
class Inversions:
    """Images with the noise that regenerates them."""

    # n distinct ids; those that a method is given are random and say nothing
    image_ids: tuple[str, ...]
    # The increasing walk 0 = s_0 < … < s_max, shared by inversion and generation
    timesteps: tuple[int, ...]
    x_0: Tensor  # [n, 3, H, W] float32 in [-1, 1], the images
    x_T: Tensor  # [n, 3, H, W] float32, the noise at s_max
    # [n, 3, H, W] float32, the image regenerated from x_T without any edit: the baseline of every
    # edit (not clamped)
    reconstruction: Tensor

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def noise_keys(self) -> tuple[str, ...]:
        """N keys of random numbers that belong to an image: hashes of its pixels.

        For `image_noise`. Equal in every run, unlike the ids that a method is given.
        """
        rows = self.x_0.detach().cpu().contiguous().numpy()
        return tuple(hash_bytes(row.tobytes())[:32] for row in rows)

    def take(self, index: Sequence[int]) -> Inversions:
        """The inversions at these places, in this order."""
        i = list(index)
        return Inversions(
            tuple(self.image_ids[k] for k in i),
            self.timesteps,
            self.x_0[i],
            self.x_T[i],
            self.reconstruction[i],
        )


Collect = Callable[[int, slice, EncoderState], None]
"""(place in the timesteps, rows of the images, their encoder state), during inversion."""


def invert(
    backbone: Backbone,
    ids: Sequence[str],
    x_0: Tensor,
    timesteps: Sequence[int],
    advance: Callable[[int], None] = lambda count: None,
    collect: Collect | None = None,
    extrapolate: bool = False,
) -> Inversions:
    """Invert images [n, 3, H, W] float32 in [-1, 1], with distinct ids, and regenerate them.

    `advance` is called with the number of images of every micro-batch that is done, and `collect`
    sees x_t and h at every timestep; for the rest see `ddim_inversion`. Raises InputError for
    images of the wrong size or range, or ids that do not match them.
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
            backbone, x_0[rows], timesteps, on_step if collect else None, extrapolate
        )
        noise.append(x_T.cpu())
        # The last state that was seen is that of x_T.
        regenerated.append(ddim_generation(backbone, x_T, timesteps, encoded=last).cpu())
        advance(rows.stop - rows.start)
    return Inversions(tuple(ids), tuple(timesteps), x_0, torch.cat(noise), torch.cat(regenerated))


def write_inversions(path: Path, inversions: Inversions) -> None:
    """x_T and reconstruction; the images themselves are the data set's to give again."""
    tensors = {"x_T": inversions.x_T, "reconstruction": inversions.reconstruction}
    metadata = {"sha256": hash_tensors(tensors), "images": hash_tensors({"x_0": inversions.x_0})}
    write_bytes(path, save(tensors, metadata=metadata))


def read_inversions(
    path: Path, image_ids: Sequence[str], timesteps: Sequence[int], x_0: Tensor
) -> Inversions:
    """Stored inversions of these images and timesteps, written by `write_inversions`.

    Raises InvalidBenchmarkError where the file is absent, damaged or of other images, such as
    photographs that were replaced under their names.
    """
    try:
        tensors = read_tensors(path)
        with safe_open(path, "pt") as file:
            expected = file.metadata() or {}
        if hash_tensors(tensors) != expected.get("sha256"):
            raise ValueError("its content is not what was written")
        x_T, reconstruction = tensors["x_T"], tensors["reconstruction"]
        if x_T.shape != x_0.shape or reconstruction.shape != x_0.shape:
            raise ValueError(f"it holds images {list(x_T.shape)}, these are {list(x_0.shape)}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"stored inversions cannot be used: {error}",
            where=str(path),
            hint="delete the folder to invert again",
        ) from error
    if hash_tensors({"x_0": x_0}) != expected.get("images"):
        raise InvalidBenchmarkError(
            "stored inversions are of images with other pixels, under the same names",
            where=str(path),
            hint="give --cache another folder: fits and records in this one are of those, too",
        )
    return Inversions(tuple(image_ids), tuple(timesteps), x_0, x_T, reconstruction)


def images_per_part(backbone: Backbone, steps: int) -> int:
    """Images of one part, a multiple of the micro-batch."""
    images = images_per_shard(steps, (3, backbone.image_size, backbone.image_size))
    return -(-images // backbone.micro_batch) * backbone.micro_batch


def invert_in_parts(
    backbone: Backbone,
    batch: ImageBatch,
    timesteps: Sequence[int],
    extrapolate: bool,
    *,
    folder: Path,
    store: TrajectoryStore | None = None,
    size: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Inversions:
    """`invert` for the images of a split; parts that an interrupted call finished are read.

    Finished parts, of `size` images each, are kept in the folder until `forget_parts`. The store is
    given x_t and h of every timestep. Raises UsageError where the folder cannot be written.
    """
    size = size or images_per_part(backbone, len(timesteps))
    parts = []
    for rows in row_blocks(len(batch), size):
        images = batch.take(range(rows.start, rows.stop))
        path = folder / _PART.replace("*", f"{rows.start:05d}-{rows.stop:05d}")

        def collect(step: int, own: slice, state: EncoderState, first: int = rows.start) -> None:
            assert store is not None
            store.record(step, slice(first + own.start, first + own.stop), state)

        part = None
        if path.exists() and (store is None or store.holds(rows)):
            with suppress(InvalidBenchmarkError):  # a damaged part is made again
                part = read_inversions(path, images.image_ids, timesteps, images.pixels)
        if part is not None:
            advance(len(images))
        else:
            part = invert(
                backbone,
                images.image_ids,
                images.pixels,
                timesteps,
                advance,
                None if store is None else collect,
                extrapolate,
            )
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


def forget_parts(folder: Path) -> None:
    """Delete the parts, once the whole is stored."""
    for path in folder.glob(_PART):
        path.unlink(missing_ok=True)
