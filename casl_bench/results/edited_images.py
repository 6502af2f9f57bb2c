"""The pictures kept with a cell: what went in, what came out, and what should have come out."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.errors import InputError, InvalidBenchmarkError

Pixels = NDArray[np.uint8]
FILE_NAME = "images.npz"
READ_ERRORS = (
    OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, InputError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class EditedImages:
    """A cell's pictures, RGB.

    Attributes:
        image_ids: n ids.
        strengths: S non-zero strengths, in the order of `edits`.
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
        expected |= {"edits": (s, n, *picture)} | ({"oracle": (n, *picture)} if self._known else {})
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.uint8:
                raise InputError(f"{name} is {array.dtype}{array.shape}, expected uint8{shape}")

    @property
    def _known(self) -> bool:
        return self.oracle is not None

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
        """Read what `to_bytes` wrote.

        Raises:
            InvalidBenchmarkError: on anything else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return cls(
                    tuple(str(i) for i in file["image_ids"]),
                    tuple(float(s) for s in file["strengths"]),
                    file["source"],
                    file["reconstruction"],
                    file["edits"],
                    file.get("oracle"),
                )
        except READ_ERRORS as error:
            raise InvalidBenchmarkError(f"not a cell's pictures: {error}", where=where) from error


def to_pixels(images: NDArray[np.float32]) -> Pixels:
    """[..., 3, H, W] in [-1, 1] (clipped) → [..., H, W, 3] of 0 … 255, rounded."""
    scaled = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.moveaxis(scaled, -3, -1)
