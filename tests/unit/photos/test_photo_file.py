"""Image files of every kind give the right pixels; bad ones are refused in one line."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.photos import photo_file
from casl_bench.photos.photo_file import BadPhotoError, decode_photo, read_photo
from tests.support.layouts import encoded_picture

SIZE = 32


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(size: int = SIZE, number: int = 1) -> Image.Image:
    return Image.open(io.BytesIO(encoded_picture(number, size, "png"))).convert("RGB")


def pixels_of(image: Image.Image) -> Tensor:
    """What a file should give, by arithmetic alone."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def decode(data: bytes, size: int = SIZE) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_photo(data, "a.png", size)


def test_an_image_of_the_right_size_is_itself() -> None:
    pixels = decode(encoded(picture()))
    assert torch.equal(pixels, pixels_of(picture()))
    assert pixels.dtype == torch.float32 and pixels.is_contiguous()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encoded(Image.fromarray(stripes)), 32)
    assert pixels[:, 2:-2, 2:-2].abs().max() < 0.05  # mid-grey; sampling points would be black


@pytest.mark.parametrize(("width", "height"), [(48, 32), (32, 48), (47, 32), (45, 32), (33, 32)])
def test_the_middle_square_is_torchvisions(width: int, height: int) -> None:
    image = picture(64).crop((0, 0, width, height))
    assert torch.equal(decode(encoded(image)), pixels_of(CenterCrop(32)(image)))


def test_a_small_image_is_enlarged() -> None:
    assert decode(encoded(picture(8)), 32).shape == (3, 32, 32)


def test_grey_palette_and_two_colours() -> None:
    grey = picture().convert("L")
    assert torch.equal(decode(encoded(grey)), pixels_of(grey.convert("RGB")))
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    assert torch.equal(decode(encoded(palette)), pixels_of(palette.convert("RGB")))
    bits = picture().convert("1")
    assert torch.equal(decode(encoded(bits)), pixels_of(bits.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(kind: str) -> None:
    ramp = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    pixels = decode(encoded(Image.fromarray(ramp), kind))
    expected = torch.from_numpy(ramp.astype(np.float64)) / 32767.5 - 1
    assert (pixels[0] - expected).abs().max() <= 0.5 / 127.5 + 1e-6
    assert torch.equal(pixels[0], pixels[2])


def test_a_dark_sixteen_bit_image_stays_dark() -> None:
    dark = np.full((SIZE, SIZE), 257 * 10, np.uint16)
    assert torch.allclose(decode(encoded(Image.fromarray(dark))), torch.tensor(10 / 127.5 - 1))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_either_byte_order(order: str) -> None:
    ramp = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(order)
    mode = "I;16" if order == "<u2" else "I;16B"
    data = encoded(Image.frombytes(mode, (SIZE, SIZE), ramp.tobytes()), "TIFF")
    pixels = decode(data)
    assert pixels[0, 0, 0] == -1 and pixels[0, -1, -1] == 1
    netpbm = b"P5 32 32 65535\n" + ramp.astype(">u2").tobytes()
    assert torch.equal(decode(netpbm), pixels)


def test_sixteen_bits_of_colour_keep_their_range() -> None:
    values = np.linspace(0, 65535, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    expected = torch.from_numpy(values.astype(np.float64)).permute(2, 0, 1) / 32767.5 - 1
    assert (decode(png_of_size(SIZE, SIZE, 16, rows)) - expected).abs().max() < 1.1 / 127.5


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_near_its_rgb(kind: str) -> None:
    cmyk = picture().convert("CMYK")
    options = {"quality": 100} if kind == "JPEG" else {}
    gap = (decode(encoded(cmyk, kind, **options)) - pixels_of(picture())).abs()
    assert gap.mean() < 0.03


def test_transparency_is_laid_on_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(0)
    assert torch.equal(decode(encoded(image)), torch.ones(3, SIZE, SIZE))
    half = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 128))
    assert torch.allclose(decode(encoded(half)), torch.tensor(127 / 127.5 - 1), atol=0.01)
    grey = Image.new("LA", (SIZE, SIZE), (0, 0))
    assert torch.equal(decode(encoded(grey)), torch.ones(3, SIZE, SIZE))


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    palette = Image.new("P", (SIZE, SIZE), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert torch.equal(decode(encoded(palette, transparency=3)), torch.ones(3, SIZE, SIZE))
    assert torch.equal(decode(encoded(palette, transparency=2)), -torch.ones(3, SIZE, SIZE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = picture(48).crop((0, 0, 48, 40))
    # How a camera held that way would have stored it: the inverse of what a viewer does.
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    image = upright
    for turn in stored:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert torch.equal(decode(encoded(image, exif=exif)), decode(encoded(upright)))


def test_broken_or_odd_exif_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert torch.equal(decode(encoded(picture(), exif=exif)), pixels_of(picture()))
    data = encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert torch.equal(decode(data), pixels_of(picture()))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    first, second = (Image.new("RGB", (SIZE, SIZE), colour) for colour in ("white", "black"))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert torch.equal(decode(data), torch.ones(3, SIZE, SIZE))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_every_kind_of_file_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(picture(), kind))
    gap = (read_photo(path, SIZE) - pixels_of(picture())).abs().mean()
    assert gap < 0.15


def test_real_photographs(golden_path: Callable[[str], Path]) -> None:
    for folder in ("photos/celeba_hq", "photos/afhq/dog"):
        for path in sorted(golden_path(folder).iterdir()):
            pixels = read_photo(path, 256)
            assert pixels.shape == (3, 256, 256) and pixels.dtype == torch.float32
            assert -1 <= pixels.min() < -0.5 and 0.5 < pixels.max() <= 1, path
            assert 0.1 < pixels.std() < 1, path


def jpeg() -> bytes:
    return encoded_picture(1, 48)


def png() -> bytes:
    return encoded_picture(1, 48, "png")


def png_with_a_flipped_bit() -> bytes:
    data = bytearray(png())
    data[data.index(b"IDAT") + 40] ^= 0xFF
    return bytes(data)


def png_of_size(width: int, height: int, bits: int = 8, rows: bytes = b"\0") -> bytes:
    """A colour PNG by hand: a header may promise pixels with next to nothing behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD_BYTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "an empty file"),
    "one byte": (lambda: b"\xff", "not an image"),
    "text": (lambda: b"hello, domain\n" * 50, "not an image"),
    "zeros": (lambda: bytes(5000), "not an image"),
    "noise": (lambda: np.random.default_rng(0).bytes(5000), "not an image"),
    "web page": (lambda: b"<!DOCTYPE html><html>quota exceeded</html>", "a web page"),
    "LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), "a zip archive"),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "JPEG cut in its header": (lambda: jpeg()[:20], "truncated|corrupt|not an image"),
    "JPEG cut in half": (lambda: jpeg()[: len(jpeg()) // 2], "truncated"),
    "JPEG cut at its end": (lambda: jpeg()[:-60], "truncated"),
    "PNG cut in half": (lambda: png()[: len(png()) // 2], "truncated|corrupt"),
    "PNG without its end": (lambda: png()[:-20], "truncated|corrupt"),
    "PNG with a flipped bit": (png_with_a_flipped_bit, "corrupt"),
    "PNG header alone": (lambda: png()[:33], "not an image"),
    "WebP cut in half": (
        lambda: encoded_picture(1, 48, "webp")[:100],
        "truncated|corrupt|not an image",
    ),
    "TIFF cut in half": (lambda: encoded(picture(), "TIFF")[:1500], "truncated|corrupt"),
    "BMP cut in half": (lambda: encoded(picture(), "BMP")[:1500], "truncated|corrupt"),
    "GIF cut in half": (lambda: encoded(picture(), "GIF")[:900], "truncated|corrupt"),
    "one pixel": (lambda: encoded(picture().crop((0, 0, 1, 1))), "1×1 pixels are too few"),
    "seven pixels high": (lambda: encoded(picture().crop((0, 0, 32, 7))), "32×7 pixels are too"),
    "no pixels": (lambda: png_of_size(0, 0), "truncated|corrupt|too few|not an image"),
    "10,000 pixels a side": (lambda: png_of_size(10000, 10000), "decompression bomb"),
    "60,000 pixels a side": (lambda: png_of_size(60000, 60000), "decompression bomb"),
    "floating point": (
        lambda: encoded(Image.fromarray(np.ones((SIZE, SIZE), np.float32)), "TIFF"),
        "floating-point pixels",
    ),
    "32 bits": (
        lambda: encoded(Image.fromarray(np.full((SIZE, SIZE), 1 << 20, np.int32)), "TIFF"),
        "32-bit pixels",
    ),
}


def one_line(error: InvalidBenchmarkError, *parts: str) -> None:
    assert "\n" not in str(error) and len(str(error)) < 400
    assert error.exit_code == 5
    for part in (*parts, "--on-bad-image skip"):
        assert part in str(error)


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_bytes_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, reason = BAD_BYTES[name]
    path = tmp_path / "photo.jpg"
    path.write_bytes(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadPhotoError, match=reason) as raised:
            read_photo(path, SIZE)
    one_line(raised.value, str(path))


def absent(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()


def broken_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.jpg"))


def loop_of_links(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (absent, "no such image"),
        (folder, "a folder"),
        (broken_link, "no such image"),
        (loop_of_links, "no such image|cannot be read"),
        (pipe, "not a plain file"),
    ],
)
def test_what_is_no_file_is_refused_in_one_line(
    make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    make(path)
    with pytest.raises(BadPhotoError, match=reason) as raised:
        read_photo(path, SIZE)
    one_line(raised.value, str(path))


def test_a_file_that_is_far_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_file, "MAX_BYTES", 100)
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(101))
    with pytest.raises(BadPhotoError, match="101 bytes is too large"):
        read_photo(path, SIZE)


def test_half_an_image_is_refused_even_where_another_library_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadPhotoError, match="truncated"):
        decode(jpeg()[: len(jpeg()) // 2])
