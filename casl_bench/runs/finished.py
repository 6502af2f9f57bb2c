"""What of a plan is finished.

A record counts for its cell if it is of these very settings and its method's source is still the
same, see `sources`. What it was compared without, because another cell had failed, it names itself;
as soon as that cell is done, it counts no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.plan import KEY_ARTEFACT, Cell, changed

_WITHOUT = "without "


@dataclass(frozen=True)
class Standing:
    """What a run folder says of a cell.

    Attributes:
        record: the finished record that counts for it; None where it is to be run.
        awaits: whether that record was compared without another cell, which may yet be done.
        changed: what has another source than that which made the record; only because of it the
            cell is run again.
    """

    record: RunRecord | None
    awaits: bool = False
    changed: tuple[str, ...] = ()


def standing(store: RecordStore, cell: Cell) -> Standing:
    """What the store says of a cell.

    Raises:
        InvalidBenchmarkError: if a stored record is corrupt.
    """
    record = store.find(cell.store_key)
    if record is None or record.status != "done" or record.artefacts.get(KEY_ARTEFACT) != cell.key:
        return Standing(None)
    if other := changed(record.provenance.sources, cell.sources):
        return Standing(None, changed=other)
    lacked = [key for key in cell.compared_with if without(key) in record.artefacts]
    if any(_is_there(store, key) for key in lacked):
        return Standing(None)
    return Standing(record, bool(lacked))


def finished(store: RecordStore, cell: Cell) -> RunRecord | None:
    """The finished record of this very cell: same inputs, settings and code, compared with all.

    Raises:
        InvalidBenchmarkError: if a stored record is corrupt.
    """
    return standing(store, cell).record


def is_done(store: RecordStore, cell: Cell) -> bool:
    """Whether the store holds what `finished` gives.

    Raises:
        InvalidBenchmarkError: if a stored record is corrupt.
    """
    return finished(store, cell) is not None


def without(key: CellKey) -> str:
    """The name among `artefacts` under which a record says that it was compared without a cell."""
    return f"{_WITHOUT}{key.path.as_posix()}"


def is_final(record: RunRecord) -> bool:
    """Whether its cell is done and was compared with all that it was to be: no run changes it."""
    return record.status == "done" and not any(a.startswith(_WITHOUT) for a in record.artefacts)


def _is_there(store: RecordStore, key: CellKey) -> bool:
    record = store.find(key)
    return record is not None and record.status == "done"
