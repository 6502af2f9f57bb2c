"""Pre-rendered training pictures: drawn once, kept on disk, shared by every training.

A pool is a pure function of (drawing, seed, split, count), so its folder carries the hash of
all four and a hit can be used without asking further. Building may be killed anywhere: finished
chunks stay, and since their bytes are determined, two builders at once only do the work twice.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.content_hash import hash_json
from casl_bench.core.seeding import derive_seed
from casl_bench.images.drawing import Drawing, Factors

CHUNK = 8192
"""Pictures a chunk file: the work lost at most when a build is killed."""


@dataclass(frozen=True)
class Pool:
    """Pictures with all that is known of them.

    Attributes:
        drawing: the renderer.
        images: uint8 [n, 64, 64, 3], RGB, memory-mapped read-only.
        attributes: bool [n, A] in the renderer's order.
        factors: the factors that were drawn.
        flipped: uint8 [n, 64, 64, 3], each picture again with one attribute negated and all else
            equal; None where the pool was asked for without.
        flipped_attribute: int64 [n], the column that was negated in `flipped`.
    """

    drawing: Drawing
    images: NDArray[np.uint8]
    attributes: NDArray[np.bool_]
    factors: Factors
    flipped: NDArray[np.uint8] | None
    flipped_attribute: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.attributes)


def default_cache_dir() -> Path:
    """Where pools are kept when no folder is given: the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "casl_bench" / "render_pools"


def load_pool(
    drawing: Drawing,
    count: int,
    seed: int,
    split: str = "train",
    cache_dir: str | Path | None = None,
    *,
    flips: bool = False,
    workers: int | None = None,
) -> Pool:
    """The first `count` pictures of a training stream, drawn now or taken from the cache.

    Args:
        drawing: the renderer.
        count: number of pictures, at least 1.
        seed: of the stream; streams of two seeds or splits share no picture, and none shares a
            picture with the benchmark's own splits.
        split: a name that separates training from held-out streams.
        cache_dir: folder of all pools; the user's cache folder where None.
        flips: whether each picture is drawn a second time with attribute `index % A` negated.
        workers: drawing processes; one a core where None.

    Returns:
        The pool, its pictures memory-mapped.
    """
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    stream = derive_seed(seed, "render_pool", split)
    factors = drawing.sample(np.arange(count), stream)
    column = np.arange(count) % len(drawing.attributes)
    images = _cached(drawing, factors, _folder(root, drawing, seed, split, count, "plain"), workers)
    flipped = None
    if flips:
        attributes = factors.attributes.copy()
        attributes[np.arange(count), column] ^= True
        other = Factors(factors.image_ids, attributes, factors.nuisance)
        folder = _folder(root, drawing, seed, split, count, "flipped")
        flipped = _cached(drawing, other, folder, workers)
    return Pool(drawing, images, factors.attributes, factors, flipped, column)


def _folder(root: Path, drawing: Drawing, seed: int, split: str, count: int, kind: str) -> Path:
    key = hash_json([drawing.revision, seed, split, count, kind])[:16]
    return root / f"{drawing.name}-{split}-{seed}-{count}-{kind}-{key}"


def _cached(
    drawing: Drawing, factors: Factors, folder: Path, workers: int | None
) -> NDArray[np.uint8]:
    """The pictures of these factors from `folder/images.npy`, which is written first if absent."""
    done = folder / "images.npy"
    if not done.exists():
        parts = folder / "parts"
        parts.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(factors), CHUNK)
        for start in starts:
            part = parts / f"{start:08d}.npy"
            if not part.exists():
                _write(part, drawing.render_parallel(factors[start : start + CHUNK], workers))
        whole = np.concatenate([np.load(parts / f"{start:08d}.npy") for start in starts])
        _write(done, whole)
        shutil.rmtree(parts, ignore_errors=True)
    images: NDArray[np.uint8] = np.load(done, mmap_mode="r")
    return images


def _write(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array whole or not at all."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    with temporary.open("wb") as f:
        np.save(f, array)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)
