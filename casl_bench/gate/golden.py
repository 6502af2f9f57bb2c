"""A golden run: what the exact tier needs of a run folder, small enough to be committed."""

from __future__ import annotations

from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.gate.run_side import read_side
from casl_bench.records.record_store import CellKey, RecordStore


def write_golden(run: Path, out: Path) -> int:
    """Copy edits and per-image scores of a valid run, without pictures, levels and curves.

    Args:
        run: folder of a finished run.
        out: folder to write; it must not hold a run yet, so that no old cell stays in it.

    Returns:
        How many records were written.

    Raises:
        UsageError: if `out` holds something, or `run` nothing.
        InvalidBenchmarkError: if the run cannot be believed.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError("the folder is not empty", where=str(out), mend="remove it first")
    side, store = read_side(run), RecordStore(out)
    edits = [r for r in side.records if r.kind == "edit"]
    for record in edits:
        slim = record.model_copy(update={"images": None, "levels": (), "curve": ()})
        files = {}
        if record.scores is not None:
            place = side.store.folder(CellKey.of(record))
            files[record.scores.file] = (place / record.scores.file).read_bytes()
        store.write(slim, files)
    return len(edits)
