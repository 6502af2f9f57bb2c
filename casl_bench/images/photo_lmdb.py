"""LSUN's databases: encoded images under keys of 40 hexadecimal digits, read where they lie."""

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
from casl_bench.images.photo_file import BadPhotoError
from casl_bench.images.photo_layout import Photo

# LMDB refuses to open a database twice in one process.
_ONE_AT_A_TIME = threading.RLock()
_SMALLEST = 8192  # bytes: its two first pages


@dataclass(frozen=True)
class LmdbPhotos:
    """A run of a database's images in the order of their keys, which is the same everywhere.

    Keys are walked as they are needed and from the nearer end, and no image is touched by that:
    the few hundred images of a run do not list the 126,227 of LSUN-Church.

    Attributes:
        path: the folder with data.mdb.
        start: place of the first image.
        stop: place after the last.
    """

    path: Path
    start: int
    stop: int

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

    Raises:
        UsageError: the package `lmdb` is not installed.
        InvalidBenchmarkError: it is no database, is cut short, or has no image.
    """
    with _opened(path) as transaction:
        count = int(transaction.stat()["entries"])
    if not count:
        raise InvalidBenchmarkError("the database is empty", where=str(path), mend=_MEND)
    return count


_MEND = "download and unpack it again"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import lmdb  # only this layout needs it
    except ImportError as error:
        raise UsageError(
            "this layout needs the package lmdb",
            where=str(path),
            mend="pip install 'casl-bench[real]'",
        ) from error
    with _ONE_AT_A_TIME:
        size = (path / "data.mdb").stat().st_size
        short = InvalidBenchmarkError(
            f"the database is cut short: {size:,} bytes", where=str(path), mend=_MEND
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
                f"not an LMDB database: {reason}", where=str(path), mend=_MEND
            ) from error
        try:
            # Reading past the end of the file would kill the process.
            if (database.info()["last_pgno"] + 1) * database.stat()["psize"] > size:
                raise short
            with database.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise InvalidBenchmarkError(
                f"the database is damaged: {error}", where=str(path), mend=_MEND
            ) from error
        finally:
            database.close()


def _value(transaction: Any, key: bytes, where: str) -> bytes:
    import lmdb

    try:
        return bytes(transaction.get(key) or b"")
    except lmdb.Error as error:
        raise BadPhotoError(f"the database is damaged here: {error}", where) from error
