"""What was begun and not ended, on disk: so a dead process leaves word of the cell that it died in.

Nobody watches a process from outside. A cell's limit of time ends its process from within, by a
timer of the operating system's threads that not even a loop in C holds up, and what Python was
doing at that moment is written down first.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from casl_bench.core.files import write_json

ATTEMPTS = 2
"""So often a cell is begun in one run; once where it has passed its limit of time."""


class CellDiedError(RuntimeError):
    """The process that was at this cell died."""


class CellTimeoutError(RuntimeError):
    """The cell was at work when its time was over."""


class Attempts:
    """Beginnings without an end, of one run.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "attempts"

    def clear(self) -> None:
        """Forget all: a new run gives every cell its chances again."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def tidy(self) -> None:
        """Leave but the traces of cells that hung: the run is over."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.suffix != ".trace" or not path.stat().st_size:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def count(self, key: str) -> int:
        """How often a cell was begun and not ended."""
        try:
            return int(json.loads(self._path(key).read_text(encoding="utf-8"))["count"])
        except FileNotFoundError:
            return 0

    def fault(self, key: str, limit: float | None) -> Exception | None:
        """Why a cell is not to be begun again; None where it may be.

        Args:
            key: of the cell.
            limit: its limit of time, in seconds.
        """
        trace = self._trace(key)
        if limit is not None and trace.is_file() and trace.stat().st_size:
            return CellTimeoutError(
                f"not done after {limit:g} s; what it was at: attempts/{trace.name}"
            )
        if self.count(key) >= ATTEMPTS:
            return CellDiedError(f"its process died {ATTEMPTS} times, perhaps for want of memory")
        return None

    def end(self, key: str) -> None:
        """A cell has come to its end, whatever that is. The trace of one that hung stays."""
        self._path(key).unlink(missing_ok=True)
        trace = self._trace(key)
        if trace.is_file() and not trace.stat().st_size:
            trace.unlink()

    @contextmanager
    def begun(self, key: str, limit: float | None) -> Iterator[None]:
        """Hold that a cell is begun until the block ends; end the process where it takes too long.

        Args:
            key: of the cell.
            limit: seconds; None for as long as it takes.
        """
        write_json(self._path(key), {"count": self.count(key) + 1})
        try:
            if limit is None:
                yield
                return
            with self._trace(key).open("w") as trace:
                faulthandler.dump_traceback_later(limit, file=trace, exit=True)
                try:
                    yield
                finally:
                    faulthandler.cancel_dump_traceback_later()
        finally:
            self.end(key)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _trace(self, key: str) -> Path:
        return self.folder / f"{key}.trace"
