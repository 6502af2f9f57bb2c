"""The cache: `ROOT/KIND/HASH/`, each entry whole or absent, made once however many want it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from casl_bench.cache.entry import (
    HASHED_ON_OPEN,
    SIDECAR,
    CacheKey,
    DamagedEntryError,
    Sidecar,
    check_file,
    check_files,
    is_entry_name,
    read_sidecar,
    seal,
)
from casl_bench.cache.holding import hold
from casl_bench.core.errors import InvalidBenchmarkError, UsageError

_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""Faults of the disk, and not of what makes an entry."""


class CacheError(UsageError):
    """The cache cannot be written: nothing that goes on would be kept."""


class NotKeptError(Exception):
    """Raised by what makes an entry, to leave none."""


class Entry:
    """An entry that was found or made; no other process prunes it while this object lives.

    Attributes:
        folder: where its files are.
        sidecar: what it says of itself.
    """

    def __init__(self, folder: Path, sidecar: Sidecar, held: int) -> None:
        self.folder, self.sidecar = folder, sidecar
        weakref.finalize(self, os.close, held)

    def check_large(self, path: Path) -> None:
        """Hash a file that was too large to be hashed when the entry was opened.

        Raises:
            InvalidBenchmarkError: if it is not what was written. It is then no entry any more: the
                next call of `Cache.get_or_make` makes it anew.
        """
        expected = self.sidecar.files[path.relative_to(self.folder).as_posix()]
        if expected.bytes <= HASHED_ON_OPEN:
            return
        try:
            check_file(path, expected, hashed=True)
        except DamagedEntryError as error:
            with contextlib.suppress(OSError):
                (self.folder / SIDECAR).unlink()
            raise _damaged(self.folder, error) from error


class Cache:
    """Artefacts under keys of all that determines them, shared by runs and by processes.

    Args:
        root: the cache's folder; made on the first write.
        say: told, in one line, of an entry that was damaged.
    """

    def __init__(self, root: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.root, self._say = root, say

    def folder(self, key: CacheKey) -> Path:
        """Where an entry is, or will be."""
        return self.root / key.kind / key.hash

    def work_folder(self, key: CacheKey) -> Path:
        """Where an entry is made; what an interruption left there is gone on with."""
        return self.root / key.kind / f".{key.hash}.making"

    def find(self, key: CacheKey) -> Entry | None:
        """The entry of a key; None where there is none.

        Raises:
            InvalidBenchmarkError: if it is damaged.
        """
        try:
            return self._open(key)
        except DamagedEntryError as error:
            raise _damaged(self.folder(key), error) from error

    def get_or_make(self, key: CacheKey, make: Callable[[Path], object]) -> Entry:
        """The entry of a key, made now where it is not there or is damaged.

        Of several processes one makes it and the others wait.

        Args:
            key: of all that determines it.
            make: fills the folder that it is given, which holds what an interrupted call left.

        Raises:
            CacheError: where the cache cannot be written.
        """
        with contextlib.suppress(DamagedEntryError):
            if (entry := self._open(key)) is not None:
                return entry
        with self.lock(key):
            try:
                if (entry := self._open(key)) is not None:
                    return entry
            except DamagedEntryError as error:
                self._say(f"{self.folder(key)} is damaged and made again: {error}")
            return self._make(key, make)

    def entries(self, kind: str) -> Iterator[Sidecar]:
        """Sidecars of the undamaged entries of a kind, in the order of their folders' names."""
        folder = self.root / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if is_entry_name(path.name):
                with contextlib.suppress(DamagedEntryError):
                    yield read_sidecar(path)

    @contextmanager
    def lock(self, key: CacheKey, timeout: float = -1) -> Iterator[None]:
        """Hold what makes, replaces and deletes an entry.

        Args:
            key: of the entry.
            timeout: seconds; -1 waits for as long as it takes.

        Raises:
            CacheError: where the cache cannot be written.
            filelock.Timeout: if somebody else held it for that long.
        """
        path = self.root / key.kind / ".locks" / key.hash
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=timeout, poll_interval=0.02)
        try:
            yield
        finally:
            lock.release()

    def discard(self, key: CacheKey) -> None:
        """Delete an entry whose lock is held: taken out of sight first, then file by file.

        Raises:
            CacheError: where the cache cannot be written.
        """
        folder = self.folder(key)
        aside = folder.with_name(f".{key.hash}.gone")
        with self._writing():
            if aside.exists():
                shutil.rmtree(aside)
            if folder.exists():
                folder.rename(aside)
                shutil.rmtree(aside)

    def _make(self, key: CacheKey, make: Callable[[Path], object]) -> Entry:
        work = self.work_folder(key)
        with self._writing():
            self.discard(key)
            work.mkdir(parents=True, exist_ok=True)
            # An interruption after the sidecar was written and before the renaming.
            (work / SIDECAR).unlink(missing_ok=True)
            afresh = not any(work.iterdir())
        started = time.monotonic()
        try:
            with self._writing(making=True):
                make(work)
                _flush(work)
                seal(work, key, time.monotonic() - started if afresh else None)
                work.rename(self.folder(key))
                _flush(work.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                work.rmdir()  # nothing was begun
            raise
        entry = self._open(key)
        if entry is None:
            raise CacheError("an entry went away right after it was made", where=str(self.root))
        return entry

    def _open(self, key: CacheKey) -> Entry | None:
        """None where there is no entry; DamagedEntryError where it is not what was written."""
        folder = self.folder(key)
        try:
            held = hold(folder / SIDECAR)
            if held is None:
                if folder.exists():
                    raise DamagedEntryError(f"{SIDECAR} is absent")
                return None
        except OSError as error:
            raise CacheError(
                f"cannot read the cache: {error.strerror or error}",
                where=str(folder),
                mend="give --cache another folder",
            ) from error
        try:
            sidecar = read_sidecar(folder)
            check_files(folder, sidecar)
        except BaseException:
            os.close(held)
            raise
        with contextlib.suppress(OSError):  # a cache that is read only has no last use
            os.utime(folder / SIDECAR)
        return Entry(folder, sidecar, held)

    def _is_here(self, where: str) -> bool:
        return not where or Path(where).absolute().is_relative_to(self.root.absolute())

    @contextmanager
    def _writing(self, *, making: bool = False) -> Iterator[None]:
        """Tell faults of the disk in one line; what makes an entry may have others of its own."""
        try:
            yield
        except (CacheError, Timeout):
            raise
        except (OSError, UsageError) as error:
            fault = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(fault, OSError) or (making and fault.errno not in _DISK_FAULTS):
                raise
            if isinstance(error, UsageError) and not self._is_here(error.where):
                raise  # such as the run folder: its own words say which
            raise CacheError(
                f"cannot write the cache: {fault.strerror or fault}",
                where=str(self.root),
                mend="free it (casl-bench cache prune) or give --cache another folder",
            ) from error


def _damaged(folder: Path, error: DamagedEntryError) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(
        f"damaged cache entry: {error}",
        where=str(folder),
        mend="run the same command again to have it made anew",
    )


def _flush(folder: Path) -> None:
    """Have the operating system put a folder's files, and their names, on the disk."""
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
