"""Files that are either whole or absent, JSON, and the SHA-256 of content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError, first_fault

M = TypeVar("M", bound=BaseModel)

PARTIAL = ".partial-"
"""Begins the name of what is still being written. A killed process leaves it behind."""


def clear_partial(folder: Path) -> None:
    """Delete what killed processes left half written below a folder that no other one writes to."""
    for path in list(folder.rglob(f"{PARTIAL}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def make_folder(path: Path) -> Path:
    """Create a folder, parents included. UsageError where it cannot be made or written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise unwritable(path, error) from error
    return path


@contextmanager
def partial_folder(parent: Path, name: str = "") -> Iterator[Path]:
    """A folder in which to write what is then moved to its place beside it; deleted afterwards.

    So is what killed processes have left that wrote under the same `name`, which stands for one
    place alone. UsageError where the parent, made if need be, cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if name:
            for left in [p for p in parent.iterdir() if p.name.startswith(f"{PARTIAL}{name}-")]:
                shutil.rmtree(left, ignore_errors=True)
        prefix = f"{PARTIAL}{name}-" if name else PARTIAL
        with tempfile.TemporaryDirectory(
            dir=parent, prefix=prefix, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)
    except OSError as error:
        raise unwritable(parent, error) from error


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place whole, once the block has ended; UsageError if it cannot."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=PARTIAL, delete=False) as f:
            temporary = Path(f.name)
            yield f
            f.flush()
            os.fsync(f.fileno())
        # mkstemp makes files private (0600); results are as readable as any other new file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; UsageError where the folder cannot be written."""
    with new_file(path) as f:
        f.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text, line ends as given; "?" for bytes of no encoding."""
    write_bytes(path, text.encode(errors="replace"))


def json_text(value: Any) -> str:
    """Readable JSON with sorted keys and a final newline. Raises ValueError on NaN or infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text + "\n"


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `json_text`."""
    write_text(path, json_text(value))


def safe_name(name: str) -> str:
    """A name as one folder or file: distinct names stay distinct, none can leave its parent.

    A leading dot or underscore is escaped, as those begin names that are not from a user.
    Raises UsageError on a name that is empty or too long.
    """
    quoted = quote(name, safe="")
    if quoted[:1] in (".", "_", "~", "-"):
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    if not quoted or len(quoted) > 100:
        raise UsageError(f"name '{name[:40]}' is empty or too long for a folder")
    return quoted


def regular(path: Path) -> Path:
    """The path of a file that is about to be read.

    Raises OSError where nothing is there, or a pipe or a device, which may be waited for in vain.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return path


MOST_BYTES = 1 << 28
"""Of a file that is read whole, once it is unpacked: a stranger's must not fill the memory."""


def read_whole(path: Path) -> bytes:
    """The bytes of a file that is no model. OSError as `regular`, and where it is far too large."""
    if regular(path).stat().st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"more than {MOST_BYTES >> 20} MiB", str(path))
    return path.read_bytes()


_STAND_INS = {
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches the file itself",
    b"<!doctype html": "a web page: it was saved in place of the file",
    b"<html": "a web page: it was saved in place of the file",
}
STAND_IN_BYTES = 64
"""So many bytes of a file show whether it is a stand-in."""


def stand_in(start: bytes) -> str:
    """What lies where a file was meant to be, by its first bytes; empty where that is no such."""
    if not start:
        return "an empty file"
    text = start[:STAND_IN_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((what for begin, what in _STAND_INS.items() if text.startswith(begin)), "")


def read_json(path: Path) -> Any:
    """The JSON value in a file. Raises OSError, or ValueError as `parse_json` does."""
    text = read_whole(path).decode()
    if what := stand_in(text[:STAND_IN_BYTES].encode()):
        raise ValueError(what)
    return parse_json(text)


def parse_json(text: str) -> Any:
    """The JSON value of a text. ValueError if it is none, or nested too deeply for Python."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_checked(
    kind: type[M],
    path: Path,
    what: str,
    hint: str = "",
    error: type[BenchError] = InvalidBenchmarkError,
) -> M:
    """The JSON in a file as `kind`. Raises `error` where it is absent or not valid.

    `what` names the content in the message.
    """
    try:
        return kind.model_validate(read_json(path))
    except OSError as fault:
        verb, told = "unreadable", fault.strerror or type(fault).__name__
    except ValidationError as fault:
        verb, told = "invalid", first_fault(fault)
    except ValueError as fault:
        text = "not UTF-8 text" if isinstance(fault, UnicodeDecodeError) else str(fault)
        verb, told = "invalid", text
    raise error(f"{verb} {what}: {told}", where=str(path), hint=hint)


LONGEST_LINE = 1 << 24
"""Bytes of one of its lines, which are read one at a time."""


def bounded_lines(file: BufferedIOBase) -> Iterator[bytes]:
    """Lines of a file that may be packed. ValueError where one, or all of them, are too long."""
    total = 0
    while line := file.readline(LONGEST_LINE + 1):
        total += len(line)
        if total > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB once unpacked")
        if len(line) > LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE >> 20} MiB")
        yield line


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def unwritable(place: Path, error: OSError | str, hint: str = "", to: str = "write") -> UsageError:
    """The error for a place that cannot be written."""
    reason = error if isinstance(error, str) else error.strerror or error
    hint = hint or "choose another folder or free it"
    return UsageError(f"cannot {to}: {reason}", where=str(place), hint=hint)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    digest = hashlib.sha256()
    with regular(path).open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def hash_bytes(data: bytes) -> str:
    """SHA-256 of bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of canonical JSON (sorted keys), hex. Raises ValueError on NaN or infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hash_bytes(text.encode())


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
    """A relative path with "/" from somebody else; ValueError if it leads out of its folder."""
    path = PurePosixPath(name)
    # A colon begins a drive or a stream of a file on Windows.
    if path.is_absolute() or ".." in path.parts or not path.parts or set(name) & set("\\:\0"):
        raise ValueError(f"'{name}' leads out of the folder")
    return name
