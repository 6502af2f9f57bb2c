"""The cache: `ROOT/KIND/HASH/`, each entry whole or absent, made by one of those who want it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path
from pydantic import JsonValue

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import (
    FileSum,
    clear_partial,
    hash_file,
    hash_json,
    inside,
    read_json,
    write_json,
)
from casl_bench.core.option_types import local_path

SIDECAR = "meta.json"
FORMAT = 1
"""Part of every key. Raise it when entries come to be laid out otherwise."""

KINDS = ("inversions", "sae", "fits")
"""What the cache keeps; each is made of those before it."""

HASHED_ON_OPEN = 32 * 2**20
"""Of larger files only the size is checked when an entry is opened; they are hashed when used."""


class DamagedEntryError(Exception):
    """An entry is not what was written."""


ABOUT = "about"
"""Under this name a key's inputs hold a few words for `casl-bench cache ls`."""


@dataclass(frozen=True, eq=False)
class CacheKey:
    """Everything that determines an artifact of one of `KINDS`.

    Attributes:
        inputs: JSON values; whatever differs in them makes another entry, but for `ABOUT`: two
            methods that share a fit find it under one key.
    """

    kind: str
    inputs: Mapping[str, JsonValue]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"the cache keeps no '{self.kind}' (it keeps {', '.join(KINDS)})")

    @cached_property
    def hash(self) -> str:
        """SHA-256, hex: the name of the entry's folder."""
        hashed = {name: value for name, value in self.inputs.items() if name != ABOUT}
        return hash_json([FORMAT, self.kind, hashed])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CacheKey) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)


@dataclass(frozen=True)
class Sidecar:
    """What an entry says of itself.

    Attributes:
        inputs: of its key, in clear.
        files: path within the entry, with "/" → size and hash that it must have.
        seconds: wall time of the making; None where it was interrupted.
        made: UTC date and time, for the reader alone: nothing is decided by it.
    """

    kind: str
    inputs: dict[str, JsonValue]
    files: dict[str, FileSum]
    seconds: float | None
    made: str

    @property
    def key(self) -> CacheKey:
        """Under which it lies."""
        return CacheKey(self.kind, self.inputs)


def seal(folder: Path, key: CacheKey, seconds: float | None) -> None:
    """Write the sidecar of a finished folder. UsageError where it cannot be written."""
    files = {
        path.relative_to(folder).as_posix(): FileSum.of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    made = datetime.now(UTC).isoformat(timespec="seconds")
    said = asdict(Sidecar(key.kind, dict(key.inputs), files, seconds, made))
    write_json(folder / SIDECAR, {"check": hash_json(said), **said})


def read_sidecar(folder: Path) -> Sidecar:
    """An entry's sidecar, checked against its own checksum and the name of the folder."""
    try:
        stored: dict[str, Any] = read_json(folder / SIDECAR)
        check = stored.pop("check")
        if check != hash_json(stored):
            raise ValueError("the sidecar was changed")
        files = {inside(name): FileSum(**file) for name, file in stored.pop("files").items()}
        sidecar = Sidecar(files=files, **stored)
        if sidecar.key.hash != folder.name:
            raise ValueError("the sidecar is another entry's")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntryError(f"{SIDECAR}: {error}") from error
    return sidecar


def check_files(folder: Path, sidecar: Sidecar, *, whole: bool = False) -> None:
    """Compare an entry's files with its sidecar; with `whole`, hash files of any size."""
    for name, expected in sidecar.files.items():
        check_file(folder / name, expected, hashed=whole or expected.bytes <= HASHED_ON_OPEN)


def check_file(path: Path, expected: FileSum, *, hashed: bool) -> None:
    """DamagedEntryError unless a file has this size and, where `hashed`, this content."""
    try:
        if path.is_symlink() or path.stat().st_size != expected.bytes:
            raise DamagedEntryError(f"{path.name} is not {expected.bytes} bytes long")
        if hashed and hash_file(path) != expected.sha256:
            raise DamagedEntryError(f"{path.name} has other content than was written")
    except OSError as error:
        raise DamagedEntryError(f"{path.name}: {error.strerror or error}") from error


if sys.platform != "win32":
    import fcntl

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
"""A pipe in a sidecar's place is not waited for: it is damage."""


def lock_for_reading(path: Path) -> int | None:
    """An open descriptor that keeps an entry from being pruned; None where it went away."""
    try:
        descriptor = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if sys.platform != "win32":
        # File systems without locks have readers and pruners rely on each other's manners.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
    if _is_still(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def exclusive_lock(path: Path) -> Iterator[bool]:
    """Whether no process has locked a sidecar; while the block lasts none can."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        yield True  # no sidecar: no reader
        return
    try:
        free = True
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
        yield free
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""Faults of the disk, and not of what makes an entry."""


class CacheError(UsageError):
    """The cache cannot be written: nothing that goes on would be kept."""


class Entry:
    """An entry that was found or made; no other process prunes it while this object lives."""

    def __init__(self, folder: Path, sidecar: Sidecar, held: int) -> None:
        self.folder, self.sidecar = folder, sidecar
        weakref.finalize(self, os.close, held)

    def check_large(self, path: Path) -> None:
        """Hash a file that was too large to be hashed when the entry was opened.

        Raises InvalidBenchmarkError if it is not what was written. It is then no entry any more:
        the next call of `Cache.get_or_make` makes it anew.
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
    """Artifacts under keys of all that determines them, shared by runs and by processes."""

    def __init__(self, root: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.root, self._say = root, say

    def folder(self, key: CacheKey) -> Path:
        """Where an entry is, or will be."""
        return self.root / key.kind / key.hash

    def work_folder(self, key: CacheKey) -> Path:
        """Where an entry is made; what an interruption left there is gone on with."""
        return self.root / key.kind / f".{key.hash}.making"

    def find(self, key: CacheKey) -> Entry | None:
        """The entry of a key, or None. Raises InvalidBenchmarkError if it is damaged."""
        try:
            return self._open(key)
        except DamagedEntryError as error:
            raise _damaged(self.folder(key), error) from error

    def get_or_make(self, key: CacheKey, make: Callable[[Path], object]) -> Entry:
        """The entry of a key, made now where it is not there or is damaged.

        Of several processes one makes it and the others wait. `make` fills the folder that it is
        given, which holds what an interrupted call left. Raises CacheError where the cache cannot
        be written.
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

    @contextmanager
    def lock(self, key: CacheKey) -> Iterator[None]:
        """Hold what makes, replaces and deletes an entry. CacheError where it cannot be written."""
        path = self.root / key.kind / ".locks" / key.hash
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(poll_interval=0.02)
        try:
            yield
        finally:
            lock.release()

    def _make(self, key: CacheKey, make: Callable[[Path], object]) -> Entry:
        folder, work = self.folder(key), self.work_folder(key)
        with self._writing():
            aside = folder.with_name(f".{key.hash}.gone")
            if aside.exists():
                shutil.rmtree(aside)
            if folder.exists():  # damaged: taken out of sight first, then deleted file by file
                folder.rename(aside)
                shutil.rmtree(aside)
            work.mkdir(parents=True, exist_ok=True)
            # An interruption after the sidecar was written and before the renaming.
            (work / SIDECAR).unlink(missing_ok=True)
            clear_partial(work)
            afresh = not any(work.iterdir())
        started = time.monotonic()
        try:
            with self._writing(making=True):
                make(work)
                _flush(work)
                seal(work, key, time.monotonic() - started if afresh else None)
                work.rename(folder)
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
            held = lock_for_reading(folder / SIDECAR)
            if held is None:
                if folder.exists():
                    raise DamagedEntryError(f"{SIDECAR} is absent")
                return None
        except OSError as error:
            raise CacheError(
                f"cannot read the cache: {error.strerror or error}",
                where=str(folder),
                hint="give --cache another folder",
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
        """Report faults of the disk in one line; what makes an entry may have others of its own."""
        try:
            yield
        except CacheError:
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
                hint="free it (casl-bench cache prune) or give --cache another folder",
            ) from error


def _damaged(folder: Path, error: DamagedEntryError) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(
        f"damaged cache entry: {error}",
        where=str(folder),
        hint="run the same command again to have it made anew",
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


CACHE_VARIABLE = "CASL_BENCH_CACHE"
"""Environment variable with the cache's folder."""


def default_cache() -> Path:
    """The folder of `CASL_BENCH_CACHE`, else `casl-bench` in the user's cache folder.

    Raises UsageError where neither is known.
    """
    if named := os.environ.get(CACHE_VARIABLE, "").strip():
        return local_path(named, CACHE_VARIABLE).absolute()
    # Without a home folder platformdirs leaves a `~` in it.
    place = user_cache_path("casl-bench", appauthor=False)
    return local_path(str(place), hint=f"set {CACHE_VARIABLE}")
