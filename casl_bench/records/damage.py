"""What lies in a run folder and is not what was written: set aside, so that it is made again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.records.record_store import RecordStore

DAMAGED = "damaged"
"""Folder of a run folder; nothing reads it."""


def damaged_cells(store: RecordStore) -> tuple[Path, ...]:
    """Folders of cells whose record, or a file that it refers to, is not what was written."""
    return tuple(folder for folder in store.folders() if not _is_whole(store, folder))


def set_aside(run: Path, paths: Sequence[Path]) -> str:
    """Move damaged files or folders out of the way, to the same place under `damaged`.

    Args:
        run: the run folder.
        paths: in it.

    Returns:
        One line that names them; empty where there are none.

    Raises:
        UsageError: where the run folder cannot be written.
    """
    names = []
    for path in paths:
        place = path.relative_to(run)
        target = run / DAMAGED / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        except OSError as error:
            raise UsageError(
                f"cannot set aside what is damaged: {error.strerror or error}",
                where=str(path),
                mend="make the run folder writable",
            ) from error
        names.append(place.as_posix())
    if not names:
        return ""
    return f"damaged, made again where it is needed (set aside in {run / DAMAGED}): " + ", ".join(
        names
    )


def _is_whole(store: RecordStore, folder: Path) -> bool:
    try:
        store.read(folder)
    except InvalidBenchmarkError:
        return False
    return True
