"""The pictures kept with a cell: sources, edits and perfect edits; what activates latents most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.results.score_table import READ_ERRORS, read_arrays

Pixels = NDArray[np.uint8]
FILE_NAME = "images.npz"


@dataclass(frozen=True, eq=False)
class EditedImages:
    """A cell's pictures, RGB, of n images at S non-zero strengths.

    Attributes:
        source: [n, H, W, 3].
        reconstruction: [n, H, W, 3], regenerated without an edit.
        edits: [S, n, H, W, 3].
        oracle: [n, H, W, 3], re-rendered with the attribute flipped; None where unknown.
    """

    image_ids: tuple[str, ...]
    strengths: tuple[float, ...]
    source: Pixels
    reconstruction: Pixels
    edits: Pixels
    oracle: Pixels | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other."""
        n, s = len(self.image_ids), len(self.strengths)
        picture = self.source.shape[1:]
        if self.source.ndim != 4 or picture[-1] != 3:
            raise InputError(f"source has shape {self.source.shape}, expected [n, H, W, 3]")
        expected = {"source": (n, *picture), "reconstruction": (n, *picture)}
        expected["edits"] = (s, n, *picture)
        if self.oracle is not None:
            expected["oracle"] = (n, *picture)
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.uint8:
                raise InputError(f"{name} is {array.dtype}{array.shape}, expected uint8{shape}")

    def to_bytes(self) -> bytes:
        """As a compressed npz file: the same pictures give the same bytes."""
        arrays: dict[str, NDArray[np.generic]] = {
            "image_ids": np.array(self.image_ids, dtype=np.str_),
            "strengths": np.array(self.strengths, dtype=np.float64),
            "source": self.source,
            "reconstruction": self.reconstruction,
            "edits": self.edits,
        }
        if self.oracle is not None:
            arrays["oracle"] = self.oracle
        out = io.BytesIO()
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # no name is a keyword of it
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "") -> EditedImages:
        """Read what `to_bytes` wrote. Raises InvalidBenchmarkError on anything else."""
        try:
            arrays = read_arrays(data)
            return cls(
                tuple(str(i) for i in arrays["image_ids"]),
                tuple(float(s) for s in arrays["strengths"]),
                arrays["source"],
                arrays["reconstruction"],
                arrays["edits"],
                arrays.get("oracle"),
            )
        except READ_ERRORS as error:
            raise InvalidBenchmarkError(f"not a cell's pictures: {error}", where=where) from error


def to_pixels(images: NDArray[np.float32]) -> Pixels:
    """[..., 3, H, W] in [-1, 1] (clipped) → [..., H, W, 3] of 0 … 255, rounded."""
    scaled = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.moveaxis(scaled, -3, -1)


LATENTS_FILE = "latents.npz"
"""Of a probe's cell: the images that activate a method's best aligned latents most."""

LATENTS, IMAGES = 4, 6
"""How many of a concept's latents, and images of each, are kept."""
LARGEST = 128
"""Pictures are kept at no more pixels a side than this."""
_DIMMED = 0.25
"""How bright a picture stays where a latent is silent."""


@dataclass(frozen=True)
class LatentImages:
    """The images that activate one latent most.

    Attributes:
        latent: its number in the SAE.
        pictures: best first, [H, W, 3] each; fewer than `IMAGES` where others leave it silent.
        maps: [h, w] activation over positions of each picture, its largest value 1.
        activations: of each picture, the largest over positions, in the SAE's units.
    """

    latent: int
    pictures: tuple[Pixels, ...]
    maps: tuple[NDArray[np.float32], ...]
    activations: tuple[float, ...]

    def dimmed(self, place: int) -> Pixels:
        """The picture at this place, dark where the latent is silent."""
        picture = self.pictures[place]
        height, width, _ = picture.shape
        smooth = Image.fromarray(self.maps[place]).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        light = _DIMMED + (1 - _DIMMED) * np.asarray(smooth)
        return np.rint(picture * light[..., None]).astype(np.uint8)


def find_latent_images(
    codes: NDArray[np.float32], ranking: Sequence[int], pictures: Pixels
) -> list[LatentImages]:
    """The best latents of a ranking, each with the images that activate it most somewhere.

    `codes` are [n, d_sae, h, w] activations of the n images `pictures` [n, H, W, 3].
    """
    found = []
    for latent in ranking[:LATENTS]:
        maps = codes[:, latent]
        peaks = maps.max(axis=(1, 2))
        best = [i for i in np.argsort(-peaks, kind="stable")[:IMAGES] if peaks[i] > 0]
        found.append(
            LatentImages(
                int(latent),
                tuple(at_most(pictures[i], LARGEST) for i in best),
                tuple((maps[i] / peaks[i]).astype(np.float32) for i in best),
                tuple(float(peaks[i]) for i in best),
            )
        )
    return found


def at_most(picture: Pixels, side: int) -> Pixels:
    """The picture [H, W, 3], made smaller where a side has more pixels than this."""
    height, width, _ = picture.shape
    if max(height, width) <= side:
        return picture
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def latents_to_bytes(found: Sequence[LatentImages]) -> bytes:
    """An npz file; equal content gives equal bytes."""
    arrays = {"latents": np.array([latent.latent for latent in found])}
    for place, latent in enumerate(found):
        if latent.pictures:
            arrays[f"pictures{place}"] = np.stack(latent.pictures)
            arrays[f"maps{place}"] = np.stack(latent.maps)
            arrays[f"activations{place}"] = np.array(latent.activations)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def latents_from_bytes(data: bytes, where: str = "") -> list[LatentImages]:
    """What `latents_to_bytes` wrote. Raises InvalidBenchmarkError on anything else."""
    try:
        arrays = read_arrays(data)

        def of_latent(name: str) -> tuple[Any, ...]:
            return tuple(arrays[name]) if name in arrays else ()

        return [
            LatentImages(
                int(latent),
                of_latent(f"pictures{i}"),
                of_latent(f"maps{i}"),
                tuple(map(float, of_latent(f"activations{i}"))),
            )
            for i, latent in enumerate(arrays["latents"])
        ]
    except READ_ERRORS as error:
        raise InvalidBenchmarkError(f"cannot read latents' images: {error}", where=where) from error
