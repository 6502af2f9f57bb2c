"""One side of a comparison: the records of a run folder, found by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from casl_bench.comparison.controls import check_bounds
from casl_bench.comparison.spreads import spreads_of
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.record import RunRecord
from casl_bench.records.record_store import CellKey, RecordStore

CellName = tuple[str, str]
"""(data set, method): what gets a verdict."""

Fits = Mapping[int, RunRecord]
"""Fit seed → record."""

RANDOM = "random_direction"
"""The control whose draws EPR+ is divided by."""


@dataclass
class RunSide:
    """A run folder.

    Attributes:
        where: the folder.
        store: of its records.
        edits: cell → concept → its fits, entrants only.
        draws: (data set, concept) → records of the random draws, in order.
        controls: all other edits, by their cell's place.
        records: every one.
    """

    where: Path
    store: RecordStore
    edits: dict[CellName, dict[str, dict[int, RunRecord]]] = field(default_factory=dict)
    draws: dict[tuple[str, str], list[RunRecord]] = field(default_factory=dict)
    controls: dict[CellKey, RunRecord] = field(default_factory=dict)
    records: list[RunRecord] = field(default_factory=list)
    _spreads: dict[str, dict[str, Array]] = field(default_factory=dict)

    def scores(self, record: RunRecord) -> ScoreTable:
        """Per-image scores of a finished edit.

        Raises:
            InvalidBenchmarkError: if it has none.
        """
        table = self.store.scores(record)
        if table is None:
            place = str(self.store.folder(CellKey.of(record)))
            raise InvalidBenchmarkError("a finished edit has no scores", where=place)
        return table

    def spread(self, dataset: str, judge: str) -> Array:
        """[A] standard deviation of a classifier's logits, from the record of its trial.

        Raises:
            InvalidBenchmarkError: if the run has none.
        """
        if dataset not in self._spreads:
            self._spreads[dataset] = self._read_spreads(dataset)
        if judge not in self._spreads[dataset]:
            raise InvalidBenchmarkError(
                f"no spread of classifier '{judge}' on {dataset}", where=str(self.where)
            )
        return self._spreads[dataset][judge]

    def _read_spreads(self, dataset: str) -> dict[str, Array]:
        for record in self.records:
            if record.kind == "scorer" and record.dataset == dataset:
                return spreads_of(record)
        return {}


def read_side(folder: Path) -> RunSide:
    """Read a run folder, refusing one that cannot be believed.

    Raises:
        UsageError: if it holds no record.
        InvalidBenchmarkError: on a corrupt record, or a control out of its bounds.
    """
    store = RecordStore(folder)
    side = RunSide(folder, store)
    for record in store:
        side.records.append(record)
        if record.kind != "edit":
            continue
        method, concept = record.method or "", record.concept or ""
        if method == RANDOM and record.beside is None:
            side.draws.setdefault((record.dataset, concept), []).append(record)
        elif record.control:
            side.controls[CellKey.of(record)] = record
        else:
            cell = side.edits.setdefault((record.dataset, method), {})
            cell.setdefault(concept, {})[record.fit_seed] = record
    if not side.records:
        raise UsageError("no records", where=str(folder), mend="give the folder of a finished run")
    for draws in side.draws.values():
        draws.sort(key=lambda r: r.fit_seed)
    check_bounds(side.records, folder)
    return side


def is_run(folder: Path) -> bool:
    """Whether a folder holds any cell."""
    return any((folder / "cells").glob("*/*/*/record.json"))


def target_of(record: RunRecord) -> str:
    """The attribute that a record's concept turns on.

    A record names its concept, and most concepts are named as their attribute. Of the others it is
    the one whose drift is the measured change of the target.

    Raises:
        InvalidBenchmarkError: if no attribute is.
    """
    if record.concept in record.attributes:
        return record.concept or ""
    change = record.measurements.get("signed_target_change")
    for name, drift in record.drift.items():
        if drift is not None and change is not None and change.value == drift:
            return name
    raise InvalidBenchmarkError(f"no attribute of the record is the concept '{record.concept}'")
