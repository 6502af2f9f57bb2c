"""What a file is known by when it comes back: its name in a folder, its size and its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from casl_bench.core.content_hash import hash_file


@dataclass(frozen=True)
class FileSum:
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileSum:
        """Of a file that is there. Raises OSError where it cannot be read."""
        return cls(path.stat().st_size, hash_file(path))


def inside(name: str) -> str:
    """A relative path with "/", as somebody else has written it down.

    Raises:
        ValueError: if it leads out of the folder that it is told of.
    """
    path = PurePosixPath(name)
    # A colon begins a drive or a stream of a file on Windows.
    if path.is_absolute() or ".." in path.parts or not path.parts or set(name) & set("\\:\0"):
        raise ValueError(f"'{name}' leads out of the folder")
    return name
