"""An entry that is being read is held, so that nobody prunes it under its reader's hands.

A hold is a shared lock of the operating system on the entry's sidecar, which needs no right to
write and ends with the process, however it ends. Where there are no such locks (Windows), an open
file cannot be deleted anyway.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def hold(path: Path) -> int | None:
    """An open descriptor of a sidecar that holds it until it is closed; None where it went away.

    Raises:
        OSError: if it cannot be opened for another reason than being absent.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
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
def nobody_holds(path: Path) -> Iterator[bool]:
    """Whether no process holds a sidecar; while the block lasts none can begin to."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
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
