"""Marks on disk of what was begun and not ended: a process that dies leaves them behind.

Nothing watches a process from outside. A cell's time limit ends its process from within, by a
timer thread that not even a loop in C holds up, after a traceback has been written down.
"""

from __future__ import annotations

import contextlib
import faulthandler
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from casl_bench.core.errors import UsageError

ATTEMPTS = 2
"""A cell is begun at most this often in one run, and once where it has passed its time limit."""


class CellDiedError(RuntimeError):
    """The process that ran this cell died."""


class CellTimeoutError(RuntimeError):
    """The cell passed its time limit."""


class Attempts:
    """Marks of one run: a file for each thing that was begun, one byte for each time.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "attempts"

    def clear(self) -> None:
        """Forget everything: a new run gives every cell its chances again."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def tidy(self) -> None:
        """Remove everything but the tracebacks of cells that hung."""
        for path in self.folder.glob("*"):
            if path.suffix != ".trace" or not path.stat().st_size:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def count(self, key: str) -> int:
        """How often something was begun and not ended."""
        path = self.folder / key
        return path.stat().st_size if path.is_file() else 0

    def fault(self, key: str, limit: float | None) -> Exception | None:
        """Why a cell is not to be begun again; None where it may be.

        Args:
            key: of the cell.
            limit: its time limit in seconds.
        """
        trace = self.folder / f"{key}.trace"
        if limit is not None and trace.is_file() and trace.stat().st_size:
            return CellTimeoutError(f"not done after {limit:g} s; traceback: attempts/{trace.name}")
        if self.count(key) >= ATTEMPTS:
            return CellDiedError(f"its process died {ATTEMPTS} times, perhaps for want of memory")
        return None

    def end(self, key: str) -> None:
        """Something has come to its end, whatever that is."""
        (self.folder / key).unlink(missing_ok=True)

    @contextmanager
    def begun(self, key: str, limit: float | None = None) -> Iterator[None]:
        """Mark something as begun until the block ends; end the process where it takes too long.

        Args:
            key: of it.
            limit: seconds; None for as long as it takes.

        Raises:
            UsageError: where the run folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / key).open("ab") as mark:
                mark.write(b".")
        except OSError as error:
            raise UsageError(f"cannot write: {error.strerror}", where=str(self.folder)) from error
        try:
            if limit is None:
                yield
                return
            path = self.folder / f"{key}.trace"
            with path.open("w") as trace:
                faulthandler.dump_traceback_later(limit, file=trace, exit=True)
                try:
                    yield
                finally:
                    faulthandler.cancel_dump_traceback_later()
            path.unlink()
        finally:
            self.end(key)
