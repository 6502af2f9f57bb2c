"""Cells with their scores, read from whatever holds them: what an analysis begins with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.record import (
    CellRecord,
    CurvePoint,
    Level,
    ReferenceScales,
    RunRecord,
)
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable


@dataclass(frozen=True)
class StoredCell:
    """One cell.

    Attributes:
        record: what it knows of itself.
        scores: of the test images; None where there are none.
        validation: of the validation images at every strength tried; None likewise.
        curve: of a cell whose validation scores were not kept: what was measured then.
    """

    record: CellRecord
    scores: ScoreTable | None = None
    validation: ScoreTable | None = None
    curve: tuple[CurvePoint, ...] = ()

    def __post_init__(self) -> None:
        """Refuse scores that are not those of the record (InvalidBenchmarkError)."""
        r = self.record
        if r.status != "done" or r.kind not in ("edit", "null"):
            return
        strengths = {level.strength for level in r.levels} - {None, 0.0}
        for table in (self.scores, self.validation):
            if table is None:
                continue
            fits = r.judges and set(r.judges) <= set(table.classifiers)
            fits = fits and r.attributes == table.attributes
            if r.kind == "edit":
                fits = fits and r.attribute in r.attributes and r.strength is not None
            if table is self.scores and r.kind == "edit":
                fits = fits and {*strengths, r.strength} <= set(table.strengths)
            if not fits or not table.strengths:
                raise InvalidBenchmarkError(
                    "scores of other classifiers, attributes or strengths than the record's",
                    where=CellKey.of(r).path.as_posix(),
                    hint="run the cell again",
                )


def read_cells(run: Path) -> list[StoredCell]:
    """Every cell of a run folder, those of schema 2 among them.

    Raises InvalidBenchmarkError if a record or its scores are damaged, or a record is of schema 1,
    which kept too little to be analysed.
    """
    store = RecordStore(run)
    cells = [
        StoredCell(record, store.scores(record), store.validation_scores(record))
        for record in store
    ]
    old = [r for r in store.read_old() if r.kind != "comparison"]
    if any(r.schema_version == 1 for r in old):
        raise InvalidBenchmarkError(
            "records of schema 1 kept too little to be analysed again",
            where=str(run),
            hint="read their numbers from records.jsonl, or run the folder's command again",
        )
    return cells + convert_cells([(r, store.scores(r)) for r in old])


def convert_cells(old: Sequence[tuple[RunRecord, ScoreTable | None]]) -> list[StoredCell]:
    """Cells of schema 2, of any kind but "comparison": their numbers are computed anew."""
    unrelated = {
        dataset: _unrelated((r, t) for r, t in old if r.dataset == dataset and t is not None)
        for dataset in {r.dataset for r, _ in old}
    }
    return [StoredCell(cell_of(r, unrelated[r.dataset]), t, curve=r.curve) for r, t in old]


def cell_of(
    record: RunRecord, unrelated: tuple[float | None, float | None] = (None, None)
) -> CellRecord:
    """What a record of schema 2, of any kind but "comparison", says of its own cell.

    `unrelated` are perceptual distance and identity of unrelated images of its data set.
    """
    left_out = {"schema_version", "measurements", "levels", "attribute", "monotone"}
    own = CellRecord.model_fields.keys() & RunRecord.model_fields.keys() - left_out
    fields = {name: getattr(record, name) for name in own}
    if record.kind == "edit":
        fields["attribute"] = target_of(record)
        fields["monotone"] = "non-monotone" not in record.flags
        level_fields = Level.model_fields.keys()
        fields["levels"] = tuple(
            Level(**{name: getattr(level, name) for name in level_fields})
            for level in record.levels
        )
        fields["flags"] = ()
    else:
        fields["measurements"] = record.measurements
    if record.kind == "scorer":
        fields["scales"] = ReferenceScales(
            spreads=_spreads(record),
            unrelated_perceptual=unrelated[0],
            unrelated_identity=unrelated[1],
        )
    return CellRecord(**fields)


def target_of(record: RunRecord | CellRecord) -> str:
    """The attribute that a record's concept turns on.

    Records of schemas 1 and 2 name the concept alone, and most concepts are named as their
    attribute. Of the others it is the one whose drift is the measured change of the target.
    Raises InvalidBenchmarkError if no attribute is.
    """
    if record.attribute is not None:
        return record.attribute
    if record.concept in record.attributes or record.status != "done":
        return record.concept or ""
    change = record.measurements.get("signed_target_change")
    for name, drift in record.drift.items() if isinstance(record, RunRecord) else ():
        if drift is not None and change is not None and change.value == drift:
            return name
    raise InvalidBenchmarkError(f"no attribute of the record is the concept '{record.concept}'")


def _spreads(trial: RunRecord) -> dict[str, tuple[float, ...]]:
    """Classifier → spread of its logits, in the order of the attributes."""
    found: dict[str, dict[str, float]] = {}
    for name, m in trial.measurements.items():
        left, _, attribute = name.partition("/")
        if attribute and left.endswith(".spread") and m.value is not None:
            found.setdefault(left.removesuffix(".spread"), {})[attribute] = m.value
    return {name: tuple(by[a] for a in trial.attributes) for name, by in found.items()}


def _unrelated(cells: Iterable[tuple[RunRecord, ScoreTable]]) -> tuple[float | None, float | None]:
    """What schema 2 did not write down: it is the unit in which two numbers were measured.

    The largest number has the least of rounding.
    """
    largest: dict[str, tuple[float, float]] = {}
    for record, table in cells:
        if record.strength not in table.strengths:
            continue
        at = table.strengths.index(record.strength)
        lost = {"perceptual_guard": table.perceptual, "identity_guard": None}
        if table.identity is not None:
            lost["identity_guard"] = np.maximum(1 - table.identity, 0)
        measured = {n: m.value for n, m in record.measurements.items() if m.value is not None}
        for name, values in lost.items():
            value = measured.get(name, 0.0)
            if values is not None and value > largest.get(name, (0.0, 0.0))[0]:
                largest[name] = value, float(np.mean(values[at])) / value
    perceptual, identity = largest.get("perceptual_guard"), largest.get("identity_guard")
    return (
        None if perceptual is None else perceptual[1],
        None if identity is None else 1 - identity[1],
    )
