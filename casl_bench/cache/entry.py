"""One entry of the cache: files, and a sidecar that says what they are and what made them.

The sidecar is written last: a folder without one is no entry. Every number in it is covered by its
own checksum, every file by a size and a SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from casl_bench.core.content_hash import hash_file, hash_json
from casl_bench.core.errors import InputError
from casl_bench.core.file_sums import FileSum, inside
from casl_bench.core.files import read_json, write_json

SIDECAR = "meta.json"
FORMAT = 1
"""Part of every key. Raise it when entries come to be laid out otherwise."""

KINDS = ("inversions", "sae", "fits", "records")
"""What the cache keeps, in the order in which one is made of the other."""

HASHED_ON_OPEN = 32 * 2**20
"""Larger files are told by their size when an entry is opened, and hashed when they are used."""


class DamagedEntryError(Exception):
    """An entry is not what was written."""


ABOUT = "about"
"""Under this name a key's inputs hold a few words for whoever lists the cache."""


@dataclass(frozen=True, eq=False)
class CacheKey:
    """Everything that determines an artefact.

    Attributes:
        kind: one of `KINDS`.
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
        told = {name: value for name, value in self.inputs.items() if name != ABOUT}
        return hash_json([FORMAT, self.kind, told])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CacheKey) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)


@dataclass(frozen=True)
class Sidecar:
    """What an entry says of itself.

    Attributes:
        kind: of its key.
        inputs: of its key, in clear.
        files: path within the entry, with "/" → what is expected there.
        seconds: wall time of the making; None where it was interrupted and nobody measured it all.
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

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


def seal(folder: Path, key: CacheKey, seconds: float | None) -> None:
    """Write the sidecar of a finished folder.

    Raises:
        UsageError: where it cannot be written.
    """
    files = {
        path.relative_to(folder).as_posix(): FileSum.of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    made = datetime.now(UTC).isoformat(timespec="seconds")
    said = asdict(Sidecar(key.kind, dict(key.inputs), files, seconds, made))
    write_json(folder / SIDECAR, {"check": hash_json(said), **said})


def read_sidecar(folder: Path) -> Sidecar:
    """An entry's sidecar, checked against its own checksum and the name of the folder.

    Raises:
        DamagedEntryError: if it is absent or not what was written.
    """
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
    """Compare an entry's files with its sidecar.

    Args:
        folder: of the entry.
        sidecar: its own.
        whole: hash every file, of whatever size.

    Raises:
        DamagedEntryError: at the first file that is absent or not what was written.
    """
    for name, expected in sidecar.files.items():
        check_file(folder / name, expected, hashed=whole or expected.bytes <= HASHED_ON_OPEN)


def check_file(path: Path, expected: FileSum, *, hashed: bool) -> None:
    """Compare a file's size, and where `hashed` its content too, with what was written.

    Raises:
        DamagedEntryError: if it is absent or something else.
    """
    try:
        if path.is_symlink() or path.stat().st_size != expected.bytes:
            raise DamagedEntryError(f"{path.name} is not {expected.bytes} bytes long")
        if hashed and hash_file(path) != expected.sha256:
            raise DamagedEntryError(f"{path.name} has other content than was written")
    except OSError as error:
        raise DamagedEntryError(f"{path.name}: {error.strerror or error}") from error


def is_entry_name(name: str) -> bool:
    """Whether a folder's name is that of an entry."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None
