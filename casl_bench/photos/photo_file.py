"""One image file, of whatever kind, becomes one square of pixels, or is refused with its reason.

What is done to every image, in this order; `PREPROCESSING` is raised when any of it changes:

1. decoded by Pillow: JPEG, PNG, WebP, BMP, TIFF, GIF or PPM; of an animation the first frame;
2. turned as its EXIF orientation says;
3. made 8-bit RGB: 16-bit grey is divided by 257 (0…65535 → 0…255, nothing is clipped), palette,
   grey and CMYK are converted without a colour profile, transparency is laid on white;
4. the middle square is cut out;
5. that square is resized with Pillow's bicubic filter, which is antialiased when it shrinks;
6. scaled to float32 in [-1, 1].

The papers' own code resizes with three filters (Lanczos for faces, bicubic for dogs, bilinear for
churches): one for all is used here. The place of the square is that of torchvision's CenterCrop, so
that a church of 256 pixels on its short side, as LSUN has them, is cut as in their code.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import STAND_IN_BYTES, stand_in
from casl_bench.domains.rendering.renderer import to_pixels

PREPROCESSING = 1
MIN_SIDE = 8  # pixels: anything smaller shows nothing
MAX_PIXELS = 1 << 26  # 8192 × 8192; a header may promise more than memory holds
MAX_BYTES = 1 << 28

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
# Named, since Pillow would hand other kinds (EPS) to programs outside. JPEG includes MPO.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image."""


class BadPhotoError(InvalidBenchmarkError):
    """A file that gives no usable image; `what` is the reason, `where` the file."""

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(
            reason,
            where=where,
            hint="put a good copy there, or leave such images out with --on-bad-image skip",
        )


def read_photo(path: Path, resolution: int) -> Tensor:
    """The image of a file, as `decode_photo`."""
    return decode_photo(read_photo_bytes(path), str(path), resolution)


def read_photo_bytes(path: Path) -> bytes:
    """A file's bytes. Raises BadPhotoError where it is absent, no plain file or far too large."""
    try:
        if path.is_dir():
            raise BadPhotoError("a folder, not an image", str(path))
        if not path.exists():
            raise BadPhotoError("no such image", str(path))
        if not path.is_file():  # reading a pipe would wait for ever
            raise BadPhotoError("not a plain file", str(path))
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadPhotoError(f"a file of {size:,} bytes is too large for an image", str(path))
        return path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise BadPhotoError(reason, str(path)) from error


def decode_photo(data: bytes, where: str, resolution: int, box: Box | None = None) -> Tensor:
    """The image in encoded bytes: [3, resolution, resolution] float32 in [-1, 1].

    Smaller images are enlarged. `box` is the part that is seen, the middle square where None.
    `where` (path, or database and key) is for the message. Raises BadPhotoError where the bytes are
    no usable image.
    """
    if what := stand_in(data[:STAND_IN_BYTES]):
        raise BadPhotoError(what, where)
    # Pillow warns of odd metadata and of large images: the former is harmless, the latter refused.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _eight_bit_rgb(_decoded(data, where), where)
    square = image.resize(
        (resolution, resolution), Image.Resampling.BICUBIC, box=_seen(*image.size, box)
    )
    pixels: Tensor = to_pixels(np.array(square)[None])[0]
    return pixels.to(memory_format=torch.contiguous_format).contiguous()


def _seen(width: int, height: int, box: Box | None) -> Box:
    """Left, top, right and bottom in pixels."""
    if box is None:
        side = min(width, height)
        left, top = (round((length - side) / 2) for length in (width, height))
        return left, top, left + side, top + side
    left, top, right, bottom = (round(x * y) for x, y in zip(box, 2 * (width, height), strict=True))
    return left, top, right, bottom


def _decoded(data: bytes, where: str) -> Image.Image:
    """The first frame, upright, in the file's own mode."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadPhotoError("larger than any photograph: a decompression bomb", where) from error
    except UnidentifiedImageError as error:
        archive, other = "a zip archive", "not an image of a known kind, or its start is damaged"
        raise BadPhotoError(archive if data.startswith(b"PK") else other, where) from error
    except Exception as error:
        raise _corrupt(error, where) from error
    width, height = image.size
    if min(image.size) < MIN_SIDE:
        reason = f"{width}×{height} pixels are too few: {MIN_SIDE} a side at least"
        raise BadPhotoError(reason, where)
    if width * height > MAX_PIXELS:
        reason = f"{width}×{height} pixels are too many: a decompression bomb"
        raise BadPhotoError(reason, where)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # Another library may have set it: half an image would pass, the rest of it grey.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        if image.format == "PNG":
            # Loading does not look at checksums.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
    except Exception as error:
        raise _corrupt(error, where) from error
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - broken metadata beside good pixels turns nothing
        return None


def _eight_bit_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "F":
        raise BadPhotoError("floating-point pixels of unknown range", where)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > 65535:
            raise BadPhotoError("32-bit pixels of unknown range", where)
        # Rounded in whole numbers, none of which lies half-way: an eighth of the memory.
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    try:
        if image.has_transparency_data:
            over = image.convert("RGBA")
            white = Image.new("RGBA", over.size, "white")
            return Image.alpha_composite(white, over).convert("RGB")
        return image.convert("RGB")
    except Exception as error:
        raise BadPhotoError(f"{image.mode} pixels cannot be turned into RGB", where) from error


def _corrupt(error: Exception, where: str) -> BadPhotoError:
    text = " ".join(str(error).split()) or type(error).__name__
    short = any(word in text.lower() for word in ("truncated", "unexpected end", "not enough"))
    return BadPhotoError(f"{'truncated' if short else 'corrupt'}: {text}", where)
