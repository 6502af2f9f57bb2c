"""Listing, pruning and verifying what lies in a cache, beside processes that use it."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from casl_bench.cache.store import (
    KINDS,
    SIDECAR,
    DamagedEntryError,
    Sidecar,
    check_files,
    exclusive_lock,
    read_sidecar,
)
from casl_bench.core.errors import UsageError


@dataclass(frozen=True)
class Stored:
    """A folder of the cache: an entry, or one whose making is going on or was interrupted.

    Attributes:
        bytes: of all its files.
        last_used: seconds since the epoch, as the clock stood then.
        sidecar: None where it is unfinished or damaged.
        fault: why an entry is damaged; empty where it is not, or is unfinished.
    """

    kind: str
    folder: Path
    bytes: int
    last_used: float
    sidecar: Sidecar | None
    fault: str = ""

    @property
    def hash(self) -> str:
        """Of its key."""
        return self.folder.name.removeprefix(".").partition(".")[0]

    @property
    def unfinished(self) -> bool:
        """Whether it is no entry yet."""
        return self.folder.name.startswith(".")


def stored_in(root: Path, kinds: Sequence[str] = KINDS) -> Iterator[Stored]:
    """Everything that takes room in a cache, kind by kind, in the order of names."""
    for kind in kinds:
        folder = root / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = path.name.removeprefix(".").partition(".")[0]
            if path.is_dir() and not path.is_symlink() and re.fullmatch("[0-9a-f]{64}", name):
                with contextlib.suppress(FileNotFoundError):  # it went away meanwhile
                    yield _stored(kind, path)


def verify(entry: Stored) -> str:
    """Why an entry is not what was written, after hashing all of it; empty where it is."""
    if entry.fault or entry.sidecar is None:
        return entry.fault
    try:
        check_files(entry.folder, entry.sidecar, whole=True)
    except DamagedEntryError as error:
        return str(error)
    return ""


def select_for_pruning(
    entries: Sequence[Stored],
    *,
    size_budget: int | None = None,
    older_than: float | None = None,
    now: float | None = None,
) -> list[Stored]:
    """The entries that pruning would delete, the longest unused first.

    They go until `size_budget` bytes are left, or where unused for `older_than` seconds. A use that
    lies in the future, since the clock was set back, counts as one of this moment.
    """
    now = time.time() if now is None else now
    by_age = sorted(entries, key=lambda e: (min(e.last_used, now), e.kind, e.hash))
    left = sum(e.bytes for e in entries)
    going = []
    for entry in by_age:
        too_old = older_than is not None and now - entry.last_used > older_than
        too_much = size_budget is not None and left > size_budget
        if too_old or too_much:
            going.append(entry)
            left -= entry.bytes
    return going


def delete(root: Path, entry: Stored) -> bool:
    """Delete an entry unless a process makes or reads it; returns whether it is gone."""
    lock_file = root / entry.kind / ".locks" / entry.hash
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_file, timeout=0), exclusive_lock(entry.folder / SIDECAR) as free:
            if not free:
                return False
            aside = entry.folder.with_name(f".{entry.hash}.gone")
            if aside != entry.folder:
                if aside.exists():
                    shutil.rmtree(aside)
                entry.folder.rename(aside)
            shutil.rmtree(aside)
            return True
    except Timeout:
        return False
    except FileNotFoundError:
        return True  # another one pruned it
    except OSError as error:
        raise UsageError(
            f"cannot delete from the cache: {error.strerror or error}", where=str(root)
        ) from error


def _stored(kind: str, folder: Path) -> Stored:
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    size = sum(file.st_size for file in files)
    if folder.name.startswith("."):
        return Stored(kind, folder, size, folder.stat().st_mtime, None)
    try:
        last_used = (folder / SIDECAR).stat().st_mtime
        return Stored(kind, folder, size, last_used, read_sidecar(folder))
    except (OSError, DamagedEntryError) as error:
        return Stored(kind, folder, size, folder.stat().st_mtime, None, str(error) or "damaged")
