"""Tiny data sets in the layouts in which the real ones are published, for tests and trials.

Pictures are drawn from their number: the same call writes the same files, and no two pictures of a
data set are alike.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from casl_bench.photos.celeba_annotation import PUBLISHED_NAMES

_FAMILIES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def encoded_picture(number: int, size: int = 48, suffix: str = "jpg") -> bytes:
    """A square picture of soft colours.

    Args:
        number: which; another number is another picture.
        size: of a side in pixels.
        suffix: jpg, png or webp.
    """
    rng = np.random.default_rng(number)
    corners = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    image = corners.resize((size, size), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, _FAMILIES[suffix], quality=95)
    return file.getvalue()


def write_celeba_hq(folder: Path, images: int = 40, size: int = 48) -> Path:
    """CelebAMask-HQ: `CelebA-HQ-img/*.jpg` and the annotation. Returns `folder`."""
    rng = np.random.default_rng(images)
    signs = rng.choice([-1, 1], (images, len(PUBLISHED_NAMES)))
    rows = [f"{i}.jpg  {' '.join(map(str, signs[i]))}\n" for i in range(images)]
    _write(
        folder / "CelebAMask-HQ-attribute-anno.txt",
        f"{images}\n{' '.join(PUBLISHED_NAMES)}\n{''.join(rows)}".encode(),
    )
    _pictures(folder / "CelebA-HQ-img", [f"{i}.jpg" for i in range(images)], size, 0)
    return folder


def write_celeba(folder: Path, images: int = 40, size: tuple[int, int] = (89, 109)) -> Path:
    """CelebA: `img_align_celeba/*.jpg`, the annotation and the official partition's form.

    Of the images eight tenths train, one tenth validates and one tests. Returns `folder`.
    """
    rng = np.random.default_rng(images)
    names = [f"{i:06d}.jpg" for i in range(1, images + 1)]
    signs = rng.choice([-1, 1], (images, len(PUBLISHED_NAMES)))
    rows = [
        f"{n} {' '.join(f'{v:2d}' for v in row)}\n" for n, row in zip(names, signs, strict=True)
    ]
    header = " ".join(PUBLISHED_NAMES)
    _write(folder / "list_attr_celeba.txt", f"{images}\n{header} \n{''.join(rows)}".encode())
    parts = [sum(i >= images * tenths // 10 for tenths in (8, 9)) for i in range(images)]
    lines = [f"{n} {part}\n" for n, part in zip(names, parts, strict=True)]
    _write(folder / "list_eval_partition.txt", "".join(lines).encode())
    for number, name in enumerate(names):
        picture = Image.open(io.BytesIO(encoded_picture(number, max(size)))).resize(size)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=95)
        _write(folder / "img_align_celeba" / name, file.getvalue())
    return folder


def write_celeba_hq_folder(folder: Path, images: int = 40, size: int = 48) -> Path:
    """StarGAN v2's CelebA-HQ: `train` and `val` with `female` and `male`. Returns `folder`.

    Args:
        folder: where; made if need be.
        images: of each of the four folders.
        size: of a side in pixels.
    """
    for number, part in enumerate(("train/female", "train/male", "val/female", "val/male")):
        start = number * images
        names = [f"{start + i:06d}.jpg" for i in range(images)]
        _pictures(folder / part, names, size, start)
    return folder


def write_afhq(folder: Path, images: int = 40, size: int = 48) -> Path:
    """AFHQ, version 1: `train` and `val` with `dog/*.jpg` (and a cat). Returns `folder`.

    Args:
        folder: where; made if need be.
        images: dogs of each split.
        size: of a side in pixels.
    """
    return _afhq(folder, "val", "jpg", images, size)


def write_afhq_v2(folder: Path, images: int = 40, size: int = 48) -> Path:
    """AFHQ, version 2: `train` and `test` with `dog/*.png` (and a cat). See `write_afhq`."""
    return _afhq(folder, "test", "png", images, size)


def write_lsun_lmdb(folder: Path, images: int = 40, size: int = 48, suffix: str = "webp") -> Path:
    """LSUN's databases of churches, with `lmdb`. Returns `folder`.

    Args:
        folder: where; made if need be.
        images: of each of the two databases.
        size: of a side in pixels.
        suffix: how pictures are encoded: webp, jpg or png.
    """
    import lmdb  # comes with the extras `real` and `test`

    for start, split in ((0, "train"), (images, "val")):
        path = folder / f"church_outdoor_{split}_lmdb"
        path.mkdir(parents=True)
        with lmdb.open(str(path), map_size=1 << 28) as database, database.begin(write=True) as t:
            for number in range(start, start + images):
                key = f"{number * 0x9E3779B97F4A7C15 % (1 << 160):040x}"
                t.put(key.encode(), encoded_picture(number, size, suffix))
    return folder


def write_lsun_folder(folder: Path, images: int = 40, size: int = 48) -> Path:
    """LSUN's churches as LSUN's own script exports them, by the letters of their keys.

    Args:
        folder: where; made if need be.
        images: of each of the two splits.
        size: of a side in pixels.
    """
    for start, split in ((0, "train"), (images, "val")):
        names = [f"{i % 3:x}/{i % 5:x}/{i:040x}.webp" for i in range(images)]
        _pictures(folder / f"church_outdoor_{split}", names, size, start)
    return folder


def _afhq(folder: Path, test: str, suffix: str, images: int, size: int) -> Path:
    for start, split in ((0, "train"), (images, test)):
        names = [f"flickr_dog_{start + i:06d}.{suffix}" for i in range(images)]
        _pictures(folder / split / "dog", names, size, start)
        _pictures(folder / split / "cat", [f"flickr_cat_{start:06d}.{suffix}"], size, 10**6)
    return folder


def _pictures(folder: Path, names: list[str], size: int, start: int) -> None:
    for number, name in enumerate(names, start=start):
        _write(folder / name, encoded_picture(number, size, name.rpartition(".")[2]))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
