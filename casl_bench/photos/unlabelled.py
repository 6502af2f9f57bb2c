"""Data sets without labels: `afhq_dog`, AFHQ's dogs, and `lsun_church`, LSUN's outdoor churches.

Layouts of a folder of `afhq_dog`, the first that fits (each also below `afhq/`, `afhq_v2/` or
`afhqv2/`); images are in the order of the hash of their names, so that the two web sites they come
from are mixed:

- version 1: `train/dog/*.jpg`, `val/dog/*.jpg`; version 2: `train/dog/*.png`, `test/dog/*.png`;
- flat: images right in the folder, cut in three: eight, one and one tenth.

Of `lsun_church` (each also below `lsun/`):

- LSUN's databases: `church_outdoor_train_lmdb`, `church_outdoor_val_lmdb`, in the order of their
  keys, which are hashes already (the package `lmdb` is needed);
- exported: `church_outdoor_train/`, `church_outdoor_val/`, with folders inside or without; or flat.

The published `val` or `test` tests; the last tenth of `train` validates.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_file, hash_json
from casl_bench.domains.dataset import DATASETS
from casl_bench.photos import extra_package
from casl_bench.photos.layouts import (
    Layout,
    Photo,
    first_layout,
    last_tenth,
    layout_of_folders,
    no_layout,
    remembered,
)
from casl_bench.photos.photo_dataset import PhotoDataset, PhotoKind, shipped_concepts
from casl_bench.photos.photo_file import BadPhotoError


def find_dogs(root: Path) -> Layout:
    """What a folder of `afhq_dog` holds. Raises UsageError: no layout, or a part is missing."""
    if layout := first_layout(root, ("afhq", "afhq_v2", "afhqv2"), _published_dogs):
        return layout
    raise no_layout("afhq_dog", root, "train/dog/ beside val/dog/ or test/dog/, or images")


def _published_dogs(base: Path) -> Layout | None:
    if not (base / "train" / "dog").is_dir():
        return None
    both = [split for split in ("val", "test") if (base / split / "dog").is_dir()]
    if len(both) == 2:
        raise UsageError(
            "val/dog and test/dog are both there: two versions are mixed",
            where=str(base),
            hint="keep each version of AFHQ in a folder of its own",
        )
    tests = both[0] if both else "val"
    version = "AFHQ v1" if tests == "val" else "AFHQ v2"
    return layout_of_folders(version, base, ["train/dog"], [f"{tests}/dog"])


TRAIN, VAL = "church_outdoor_train", "church_outdoor_val"
_HINT = "download and unpack it again"
# LMDB refuses to open a database twice in one process.
_ONE_AT_A_TIME = threading.RLock()
_SMALLEST = 8192  # bytes: its two first pages


@dataclass(frozen=True)
class LmdbPhotos:
    """A run of a database's images in the order of their keys, which is the same everywhere.

    Keys are walked as they are needed and from the nearer end, and no image is touched by that:
    the few hundred images of a run do not list the 126,227 of LSUN-Church.
    """

    path: Path  # the folder with data.mdb
    start: int  # place of the first image
    stop: int  # place after the last

    def __len__(self) -> int:
        return self.stop - self.start

    def walk(self) -> Generator[Photo, None, None]:
        """Each image in turn; the database is open until the generator is closed."""
        with _opened(self.path) as transaction:
            for key in self._keys(transaction):
                name = key.decode("latin-1")  # any key has a name, and no two the same
                where = f"{self.path}, key {name}"
                read = partial(_value, transaction, key, where)
                yield Photo(f"{self.path.name}/{name}", where, read)

    def _keys(self, transaction: Any) -> Iterator[bytes]:
        cursor = transaction.cursor()
        total = transaction.stat()["entries"]
        if self.start <= total - self.start:
            return islice(cursor.iternext(keys=True, values=False), self.start, self.stop)
        backwards = islice(cursor.iterprev(keys=True, values=False), total - self.start)
        return iter(list(backwards)[::-1][: len(self)])


def count_images(path: Path) -> int:
    """How many images a database has.

    Raises UsageError where the package `lmdb` is not installed, and InvalidBenchmarkError where it
    is no database, is cut short, or has no image.
    """
    with _opened(path) as transaction:
        count = int(transaction.stat()["entries"])
    if not count:
        raise InvalidBenchmarkError("the database is empty", where=str(path), hint=_HINT)
    return count


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    lmdb = extra_package("lmdb", "this layout", str(path))
    with _ONE_AT_A_TIME:
        size = (path / "data.mdb").stat().st_size
        short = InvalidBenchmarkError(
            f"the database is cut short: {size:,} bytes", where=str(path), hint=_HINT
        )
        if size < _SMALLEST:
            raise short
        try:
            database = lmdb.open(
                str(path), readonly=True, lock=False, create=False, readahead=False, max_readers=1
            )
        except lmdb.Error as error:
            reason = str(error).replace(f"{path}: ", "")
            raise InvalidBenchmarkError(
                f"not an LMDB database: {reason}", where=str(path), hint=_HINT
            ) from error
        try:
            # Reading past the end of the file would kill the process.
            if (database.info()["last_pgno"] + 1) * database.stat()["psize"] > size:
                raise short
            with database.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise InvalidBenchmarkError(
                f"the database is damaged: {error}", where=str(path), hint=_HINT
            ) from error
        finally:
            database.close()


def _value(transaction: Any, key: bytes, where: str) -> bytes:
    import lmdb

    try:
        return bytes(transaction.get(key) or b"")
    except lmdb.Error as error:
        raise BadPhotoError(f"the database is damaged here: {error}", where) from error


def find_churches(root: Path) -> Layout:
    """What a folder of `lsun_church` holds.

    Raises UsageError where it is none of the layouts, a part of one is missing, or `lmdb` is not
    installed, and InvalidBenchmarkError where a database is damaged.
    """
    if layout := first_layout(root, ("lsun",), _published_churches):
        return layout
    if packed := next((p for n in (TRAIN, VAL) if (p := root / f"{n}_lmdb.zip").is_file()), None):
        raise UsageError("the database is still packed", where=str(packed), hint="unzip it there")
    raise no_layout("lsun_church", root, f"{TRAIN}_lmdb/ beside {VAL}_lmdb/, {TRAIN}/, or images")


def _published_churches(base: Path) -> Layout | None:
    if any((base / f"{name}_lmdb").is_dir() for name in (TRAIN, VAL)):
        return _databases(base)
    if any((base / name).is_dir() for name in (TRAIN, VAL)):
        return layout_of_folders("exported LSUN", base, [TRAIN], [VAL])
    return None


def _databases(base: Path) -> Layout:
    counts, files = {}, []
    for name in (f"{TRAIN}_lmdb", f"{VAL}_lmdb"):
        data = base / name / "data.mdb"
        if not data.is_file():
            raise UsageError("no database", where=str(data), hint="download and unpack it")
        counts[name] = count_images(base / name)
        files.append(data)
    (train, total), (test, tests) = ((base / name, count) for name, count in counts.items())
    end = last_tenth(total)
    return Layout(
        "LSUN LMDB",
        {
            "train": LmdbPhotos(train, 0, end),
            "validation": LmdbPhotos(train, end, total),
            "test": LmdbPhotos(test, 0, tests),
        },
        [sorted(counts.items()), remembered(files, lambda: hash_json([*map(hash_file, files)]))],
    )


AfhqDog = partial(
    PhotoDataset,
    PhotoKind(
        name="afhq_dog",
        concepts=shipped_concepts("afhq_dog"),
        description="AFHQ-Dog: about 5,000 close-ups of dogs' faces, without labels.",
        licence="CC BY-NC 4.0",
        source="https://github.com/clovaai/stargan-v2",
        find_layout=find_dogs,
        hub_class="dog",
    ),
)
"""Dogs' faces without labels: takes a source and a resolution."""

LsunChurch = partial(
    PhotoDataset,
    PhotoKind(
        name="lsun_church",
        concepts=shipped_concepts("lsun_church"),
        description="LSUN-Church: 126,527 photographs of churches from outside, without labels.",
        licence="LSUN states none for its images; collected from the web for research",
        source="https://www.yf.io/p/lsun",
        find_layout=find_churches,
    ),
)
"""Churches from outside, without labels: takes a source and a resolution."""

DATASETS.register("afhq_dog", AfhqDog)
DATASETS.register("lsun_church", LsunChurch)
