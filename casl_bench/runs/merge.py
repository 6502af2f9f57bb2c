"""Several run folders of one configuration → one, by copying whole cells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from casl_bench.analysis.analyse import NUMBERS_FILE, analyse
from casl_bench.analysis.controls import check_bounds
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_json
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import CellKey, RecordStore, write_jsonl
from casl_bench.runs.run_lock import claim_folder, differences, key_of_run

SHOWN = 5
"""At most so many failed cells are named."""


@dataclass(frozen=True)
class Merged:
    """What the folder holds after a merge: how many records, how many of them came with it."""

    cells: int
    copied: int
    failed: tuple[CellKey, ...]

    @property
    def text(self) -> str:
        """In one line."""
        said = f"{self.cells} records, {self.copied} of them new"
        if not self.failed:
            return said
        named = ", ".join(key.path.as_posix() for key in self.failed[:SHOWN])
        more = f" and {len(self.failed) - SHOWN} more" if len(self.failed) > SHOWN else ""
        return f"{said}, {len(self.failed)} failed: {named}{more}"


def analyse_run(run: Path, datasets: Collection[str] | None = None) -> None:
    """Analyse a run folder; InvalidBenchmarkError where a control is out of bounds on these."""
    numbers = analyse([run])
    write_jsonl(run / NUMBERS_FILE, numbers)
    check_bounds([r for r in numbers if datasets is None or r.dataset in datasets], run)


def merge(out: Path, runs: Sequence[Path]) -> Merged:
    """Copy the cells of run folders, such as the shards of one command, into one.

    Done again, it copies nothing. A cell that failed in `out` is replaced by one that is done.
    Raises UsageError if the configurations differ, a folder is no run, or `out` cannot be written,
    InvalidBenchmarkError if two folders hold different results of one cell, or one is corrupt.
    """
    keys = {run: key_of_run(run) for run in runs}
    for run, key in keys.items():
        if found := differences(keys[runs[0]], key):
            raise UsageError(
                f"the runs have different configurations: {', '.join(found)}",
                where=f"{runs[0]}, {run}",
                hint="merge runs of one suite, seed and device",
            )
    store, copied = RecordStore(out), 0
    with claim_folder(out, keys[runs[0]], "merge runs of that configuration"):
        for run in runs:
            source = RecordStore(run)
            copied += sum(_copy(record, source, store) for record in source)
        analyse_run(out)
    records = list(store)
    failed = tuple(CellKey.of(r) for r in records if r.status == "failed")
    return Merged(len(records), copied, failed)


def _copy(record: CellRecord, source: RecordStore, target: RecordStore) -> bool:
    """Whether the record was missing."""
    key = CellKey.of(record)
    known = target.find(key)
    if known is not None and (known.status == "done" or record.status != "done"):
        if known.status == record.status == "done" and known.record_id != record.record_id:
            raise InvalidBenchmarkError(
                f"two results of {key.path.as_posix()}: their {_difference(known, record)} differ",
                where=f"{target.run}, {source.run}",
                hint="run one of them again, on a --cache that they share",
            )
        return False
    target.write(record, source.files(record))
    return True


def _difference(one: CellRecord, other: CellRecord) -> str:
    mine, theirs = one.comparable(), other.comparable()
    return ", ".join(sorted(k for k in mine if hash_json(mine[k]) != hash_json(theirs.get(k))))
