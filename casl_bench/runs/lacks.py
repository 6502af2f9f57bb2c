"""What a cell is compared with and has failed: its record says so, and nobody else's is taken."""

from __future__ import annotations

from casl_bench.results.run_folder import RecordStore
from casl_bench.runs.finished import without
from casl_bench.runs.fits import NotApplicableError
from casl_bench.runs.plan import Cell


def lacks(store: RecordStore, cell: Cell) -> dict[str, str]:
    """Artefacts that name what a cell is to be compared with and cannot be.

    What does not apply, such as a control beside an editor that shows no edit, is not lacking: the
    next run will not have it either.

    Returns:
        Name, see `without` → status of that cell, "absent" where it has no record.

    Raises:
        InvalidBenchmarkError: if a stored record is corrupt.
    """
    found = {}
    for key in cell.compared_with:
        record = store.find(key)
        if record is None:
            found[without(key)] = "absent"
        elif record.error is not None and record.error.type != NotApplicableError.__name__:
            found[without(key)] = record.status
    return found
