"""Records of a run → what its methods are against each other, data set by data set and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from casl_bench.analysis.comparison import ConceptScores, Edits, Scoreboard, compare
from casl_bench.analysis.spreads import spreads_of
from casl_bench.core.files import hash_json
from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.epr_plus import signed_log
from casl_bench.results.record import ALL, LevelResult, RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import Array, EditScores
from casl_bench.runs.cell import provenance
from casl_bench.runs.finished import finished
from casl_bench.runs.measuring import EPR_PLUS
from casl_bench.runs.plan import KEY_ARTEFACT, Cell, info_of
from casl_bench.runs.strength import headline_name
from casl_bench.runs.suites import RunConfig

COMPARISON_VERSION = 2
"""Part of every key. Raise it when a comparison of the same records comes to say something else."""


@dataclass(frozen=True)
class _Entrant:
    """Its records of one concept: one a fit, and what each gave."""

    records: tuple[RunRecord, ...]
    fits: tuple[float, ...]

    @property
    def first(self) -> RunRecord:
        """Of the first fit, which is compared."""
        return self.records[0]


class Comparing:
    """Compares the methods of a finished run at the headline's effect.

    Args:
        config: of the run.
        cells: of its plan; what is missing of them is no part of a comparison.
        store: with their records.
    """

    def __init__(self, config: RunConfig, cells: Sequence[Cell], store: RecordStore) -> None:
        self.config, self.cells, self.store = config, cells, store
        self.level = headline_name(config.suite)

    def write(self) -> None:
        """A record a data set, and one over all where there are several."""
        parts = {d: self._concepts(d) for d in self.config.datasets}
        for dataset, concepts in parts.items():
            self._write(dataset, concepts)
        if len(parts) > 1:
            self._write(ALL, [c for concepts in parts.values() for c in concepts])

    def _write(self, dataset: str, concepts: Sequence[_Concept]) -> None:
        complete = [
            name
            for name in self.config.methods
            if not info_of(name).control and all(name in c.entrants for c in concepts)
        ]
        incomplete = [
            name
            for name in self.config.methods
            if not info_of(name).control and name not in complete
        ]
        place = CellKey(dataset, "comparison")
        known = self.store.find(place)
        if not complete or not concepts or not all(c.null for c in concepts):
            self._forget(place, known)
            return
        sources = [r.record_id for c in concepts for r in c.records(complete)]
        key = hash_json([COMPARISON_VERSION, self.level, incomplete, sources])
        if known is not None and known.artefacts.get(KEY_ARTEFACT) == key:
            return
        board = Scoreboard([self._scores(c, complete) for c in concepts])
        if not board.defined:
            self._forget(place, known)
            return
        comparison = compare(
            board,
            self.level,
            derive_seed(self.config.seed, "comparison", dataset),
            fits={
                name: np.array([c.entrants[name].fits for c in concepts]).T for name in complete
            },
            wrong_way={
                name: sum(self._headline(c.entrants[name].first).status == "wrong_way"
                          for c in concepts)
                for name in complete
            },
            incomplete=incomplete,
        )  # fmt: skip
        some = concepts[0].entrants[complete[0]].first
        rest = {"attributes", "scorers", "backbone", "world", "suite", "seed", "metric_versions"}
        fields = {name: getattr(some, name) for name in rest}
        if dataset == ALL:
            fields |= {"attributes": (), "scorers": {}, "backbone": None}
        self.store.write(
            RunRecord(
                **fields,
                kind="comparison",
                dataset=dataset,
                dataset_revision="" if dataset == ALL else some.dataset_revision,
                comparison=comparison,
                artefacts={KEY_ARTEFACT: key},
                provenance=provenance(self.config),
            )
        )

    def _forget(self, place: CellKey, known: RunRecord | None) -> None:
        """An earlier comparison is not to be believed once one of its methods has no other."""
        if known is None or known.comparison is None:
            return
        if {s.method for s in known.comparison.standings} & {*self.config.methods}:
            self.store.remove(place)

    def _concepts(self, dataset: str) -> list[_Concept]:
        names = dict.fromkeys(c.concept.name for c in self.cells if c.dataset == dataset)
        trial = self.store.find(CellKey(dataset, "scorer"))
        spreads = {} if trial is None else spreads_of(trial)
        found = []
        for name in names:
            own = [c for c in self.cells if c.dataset == dataset and c.concept.name == name]
            null: list[RunRecord] = []
            draws = sum(info_of(c.method).draws for c in own)
            entrants: dict[str, list[RunRecord]] = {}
            for cell in own:
                record = finished(self.store, cell)
                if record is not None and info_of(cell.method).draws:
                    null.append(record)
                elif record is not None and not cell.control:
                    entrants.setdefault(cell.method, []).append(record)
            fits = self.config.fit_seeds
            whole = {
                method: _Entrant(tuple(records), tuple(self._logged(r) for r in records))
                for method, records in entrants.items()
                if len(records) == fits
            }
            attribute = own[0].concept.attribute
            enough = null if len(null) == draws else []
            found.append(_Concept((dataset, name), attribute, whole, tuple(enough), spreads))
        return found

    def _scores(self, concept: _Concept, methods: Sequence[str]) -> ConceptScores:
        # In their order: that of a set differs from process to process.
        judges = dict.fromkeys(j for m in methods for j in concept.entrants[m].first.judges)
        null: dict[str, list[EditScores]] = {judge: [] for judge in judges}
        for record in concept.null:
            for judge in judges:
                null[judge].append(self._judged(concept, record, record.strength, judge))
        edits = {}
        for name in methods:
            record = concept.entrants[name].first
            strength = self._headline(record).strength
            table = self.store.scores(record)
            assert table is not None  # every finished edit has scores
            judged = {} if strength is None else {
                judge: self._judged(concept, record, strength, judge) for judge in record.judges
            }  # fmt: skip
            edits[name] = Edits(table.image_ids, judged)
        some = next(iter(concept.entrants.values())).first
        return ConceptScores(concept.key, some.attributes, edits, null)

    def _judged(
        self, concept: _Concept, record: RunRecord, strength: float | None, judge: str
    ) -> EditScores:
        table = self.store.scores(record)
        assert table is not None and strength is not None
        spread = concept.spreads[judge]
        return table.at(strength, concept.attribute, spread, classifier=judge)

    def _headline(self, record: RunRecord) -> LevelResult:
        return next(level for level in record.levels if level.name == self.level)

    def _logged(self, record: RunRecord) -> float:
        """The cell's score as the board has it: 0 where the effect was not reached."""
        value = self._headline(record).measurements.get(EPR_PLUS)
        return float(signed_log(value.value)) if value is not None and value.value else 0.0


@dataclass(frozen=True)
class _Concept:
    """One concept's records.

    Attributes:
        key: data set and concept.
        attribute: the target.
        entrants: method → its records; those alone that have run every fit.
        null: of the random draws; empty where one is missing.
        spreads: judge → [A].
    """

    key: tuple[str, str]
    attribute: str
    entrants: dict[str, _Entrant]
    null: tuple[RunRecord, ...]
    spreads: dict[str, Array]

    def records(self, methods: Sequence[str]) -> list[RunRecord]:
        """All that a comparison of these methods rests on."""
        return [*self.null, *(r for name in methods for r in self.entrants[name].records)]
