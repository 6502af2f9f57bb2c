"""Inversions in a file whose content can be told to be what was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from casl_bench.core.content_hash import hash_tensors
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import write_bytes
from casl_bench.inversion.inversions import Inversions


def write_inversions(path: Path, inversions: Inversions) -> None:
    """x_T and reconstruction; the images themselves are the data set's to give again."""
    tensors = {"x_T": inversions.x_T, "reconstruction": inversions.reconstruction}
    metadata = {"sha256": hash_tensors(tensors), "images": hash_tensors({"x_0": inversions.x_0})}
    write_bytes(path, save(tensors, metadata=metadata))


def read_inversions(
    path: Path, image_ids: Sequence[str], timesteps: Sequence[int], x_0: Tensor
) -> Inversions:
    """Stored inversions of these images.

    Args:
        path: written by `write_inversions`.
        image_ids: n ids.
        timesteps: the walk that they were made with.
        x_0: [n, 3, H, W], the images.

    Raises:
        InvalidBenchmarkError: where the file is absent, damaged or of other images, such as
            photographs that were replaced under their names.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
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
            mend="delete the folder to invert again",
        ) from error
    if hash_tensors({"x_0": x_0}) != expected.get("images"):
        raise InvalidBenchmarkError(
            "stored inversions are of images with other pixels, under the same names",
            where=str(path),
            mend="give --cache another folder: fits and records in this one are of those, too",
        )
    return Inversions(tuple(image_ids), tuple(timesteps), x_0, x_T, reconstruction)
