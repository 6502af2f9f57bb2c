"""Scores → numbers: a pure function of what runs have stored, without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from casl_bench.analysis.comparison import ConceptScores, Edits, ScoreMatrix, agreement, compare
from casl_bench.analysis.headline import PreciseEditMatrix, PreciseEdits, precise_edits
from casl_bench.analysis.measure import RandomDirections, ScoredCell, measure, numbers_of
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.equal_effect import strength_at_effect
from casl_bench.metrics.metric import EditMetric, metric_infos
from casl_bench.results.published_scores import ENDING, read_published, write_published
from casl_bench.results.record import (
    ALL,
    DIRECTIONS,
    CellRecord,
    CurvePoint,
    Level,
    Measurement,
    ReferenceScales,
    RunRecord,
    headline_level,
)
from casl_bench.results.run_folder import CellKey, jsonl_files, read_jsonl
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import StoredCell, read_cells

NUMBERS_FILE = "numbers.jsonl"
"""In a run folder: what its analysis gave, written anew by every command that analyses it."""

RANDOM_DIRECTION = "random_direction"
"""The control that EPR+ is divided by."""


def analyse(
    folders: Sequence[Path], metrics: Sequence[EditMetric] | None = None
) -> list[RunRecord]:
    """All numbers of one or several run folders, and how their methods compare.

    Of a cell that lies in several folders the first one counts.

    Args:
        folders: run folders, or files of published scores.
        metrics: of per-image scores; default all that are registered.

    Returns:
        A record per cell, then one per data set that compares all methods which are complete in
        what was given, and one over all data sets where there are several.

    Raises:
        InvalidBenchmarkError: if a stored record or its scores are damaged.
    """
    read = ((read_published if path.is_file() else read_cells)(path) for path in folders)
    return analyse_cells([cell for cells in read for cell in cells], metrics)


def publish(runs: Sequence[Path], path: Path) -> list[RunRecord]:
    """Write the scores of run folders into one small file, from which they can be analysed.

    The file's name ends with `casl_bench.results.published_scores.ENDING`.

    Returns:
        The numbers as the file gives them.

    Raises:
        UsageError: if it cannot be written.
        InvalidBenchmarkError: if a stored record or its scores are damaged.
    """
    datasets = group_cells(cell for run in runs for cell in read_cells(run))
    curves = {
        (d.name, CellKey.of(r)): tuple(map(_mean_alone, r.curve))
        for d in datasets
        for r in d.numbers()
    }
    kept = [
        replace(cell, validation=None, curve=curves.get((d.name, CellKey.of(cell.record)), ()))
        for d in datasets
        for cell in d.cells
    ]
    write_published(path, kept)
    return analyse([path])


def _mean_alone(point: CurvePoint) -> CurvePoint:
    """By the primary classifier, without intervals, to six digits."""
    values = {
        name: Measurement.of(float(f"{m.value:.6g}"), m.n, m.unit)
        for name, m in point.measurements.items()
        if m.value is not None and "@" not in name
    }
    return CurvePoint(strength=point.strength, measurements=values)


def read_numbers(paths: Path | Sequence[Path]) -> list[RunRecord]:
    """Numbers of run folders and published scores, analysed together, or of files of numbers.

    Args:
        paths: run folders and published scores, or `.jsonl(.gz)` files of any schema.

    Raises:
        UsageError: if there are none.
        InvalidBenchmarkError: if something stored is damaged.
    """
    paths = [paths] if isinstance(paths, Path) else paths
    folders = [p for p in paths if (p / "cells").is_dir() or p.name.endswith(ENDING)]
    numbers = analyse(folders) if folders else []
    for path in paths:
        if path in folders:
            continue
        for file in [path] if path.is_file() else jsonl_files(path):
            numbers += read_jsonl(file)
    if not numbers:
        where = ", ".join(map(str, paths))
        raise UsageError("no records", where=where, hint="give a run folder or a file of numbers")
    return numbers


def analyse_cells(
    cells: Iterable[StoredCell], metrics: Sequence[EditMetric] | None = None
) -> list[RunRecord]:
    """`analyse` of cells that were read already."""
    runs: dict[tuple[object, ...], list[DatasetScores]] = {}
    for dataset in group_cells(cells):
        some = dataset.cells[0].record
        runs.setdefault((some.suite, some.seed), []).append(dataset)
    numbers = []
    for datasets in runs.values():
        for dataset in datasets:
            numbers += dataset.numbers(metrics)
            numbers += compare_methods([dataset], metrics)
        if len(datasets) > 1:
            numbers += compare_methods(datasets, metrics)
    return numbers


def group_cells(cells: Iterable[StoredCell]) -> list[DatasetScores]:
    """Cells by suite, seed and data set; of one place the first counts."""
    datasets: dict[tuple[object, ...], dict[CellKey, StoredCell]] = {}
    for cell in cells:
        r = cell.record
        own = datasets.setdefault((r.suite, r.seed, r.dataset, r.dataset_revision), {})
        own.setdefault(CellKey.of(r), cell)
    return [DatasetScores(tuple(own.values())) for own in datasets.values()]


@dataclass(frozen=True)
class DatasetScores:
    """All cells of one data set, of one suite and seed, each of another place."""

    cells: tuple[StoredCell, ...]

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.cells[0].record.dataset

    @cached_property
    def scales(self) -> ReferenceScales:
        """The units of all scores.

        Raises:
            InvalidBenchmarkError: if the scorers' own record is not there.
        """
        found = next((c.record.scales for c in self.cells if c.record.scales is not None), None)
        scored = {(n, len(c.record.attributes)) for c in self.cells for n in c.record.judges}
        known = {} if found is None else {n: len(own) for n, own in found.spreads.items()}
        if found is None or any(known.get(name) != count for name, count in scored):
            raise InvalidBenchmarkError(
                f"the units of the scores on {self.name} are not there: the record of its scorers "
                "is missing, or of other ones",
                hint="run the folder's command again",
            )
        return found

    @cached_property
    def edits(self) -> tuple[StoredCell, ...]:
        """Finished edits that have scores, concepts in the order of their attributes."""
        done = [c for c in self.cells if _is_edit(c)]
        return tuple(sorted([*done, *self._sized_directions(done)], key=_place))

    def _sized_directions(self, done: Sequence[StoredCell]) -> list[StoredCell]:
        """Random directions as edits of every concept, each as large as the headline's effect."""
        directions = sorted(
            (c for c in self.cells if c.record.kind == "null" and c.scores is not None),
            key=lambda c: c.record.fit_seed,
        )
        wanted = {c.record.artifacts.get(DIRECTIONS) for c in directions}
        if wanted != {str(len(directions))}:
            return []  # of fewer directions than the suite's it would be another number
        found = []
        for concept in dict.fromkeys(c.record.concept for c in done):
            known = [c.record for c in done if c.record.concept == concept and c.record.levels]
            # Of the run's primary classifier where a method has it: all controls do.
            primary = directions[0].record.judges[0]
            known.sort(key=lambda r: (r.judges[0] != primary, r.method or ""))
            if known:
                found += [sized_direction(d, known[0], self.scales) for d in directions]
        return found

    @cached_property
    def by_place(self) -> dict[CellKey, StoredCell]:
        """Finished edits by their place in a run folder."""
        return {CellKey.of(cell.record): cell for cell in self.edits}

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """Those that a method has edited, in the order of their attributes."""
        own = (c.record.concept or "" for c in self.edits if not c.record.control)
        return tuple(dict.fromkeys(own))

    @cached_property
    def methods(self) -> dict[str, dict[str, dict[int, StoredCell]]]:
        """Method, no control → concept → fit → its finished cell."""
        found: dict[str, dict[str, dict[int, StoredCell]]] = {}
        for cell in self.edits:
            r = cell.record
            if not r.control and r.method is not None and r.concept is not None:
                found.setdefault(r.method, {}).setdefault(r.concept, {})[r.fit_seed] = cell
        return found

    def random_directions(self, concept: str) -> RandomDirections:
        """What random directions do to a concept; empty where none were run.

        Runs of schema 2 have cells of their own for every concept.
        """
        place = (RANDOM_DIRECTION, concept, None)
        own = [
            c
            for c in sorted(self.edits, key=lambda c: c.record.fit_seed)
            if (c.record.method, c.record.concept, c.record.beside) == place
        ]
        return [(c.scores, c.record.strength) for c in own if c.scores and c.record.strength]

    def numbers(self, metrics: Sequence[EditMetric] | None = None) -> list[RunRecord]:
        """A record per cell."""
        nulls = {c: self.random_directions(c) for c in {e.record.concept or "" for e in self.edits}}
        found = [numbers_of(cell) for cell in self.cells if not _is_edit(cell)]
        for cell in self.edits:
            null = nulls[cell.record.concept or ""]
            if cell.record.method == RANDOM_DIRECTION:
                null = ()
            found.append(measure(cell, self.scales, null, self._matched(cell.record), metrics))
        return sorted(found, key=lambda r: CellKey.of(r).path.parts)

    def _matched(self, record: CellRecord) -> StoredCell | None:
        """The control matched to a method's first fit."""
        if record.control or record.fit_seed:
            return None
        place = (record.method, record.concept)
        return next((c for c in self.edits if (c.record.beside, c.record.concept) == place), None)

    def precise_edits(
        self,
        method: str,
        concept: str,
        fits: Sequence[int],
        classifiers: Sequence[str] | None = None,
    ) -> PreciseEdits:
        """Mean over fits of a method on one concept, by all classifiers or by some alone."""
        key = (method, concept, tuple(fits), None if classifiers is None else tuple(classifiers))
        if key not in self._precise:
            cells = [self.methods[method][concept][fit] for fit in fits]
            self._precise[key] = precise_edits(cells, self.scales, classifiers)
        return self._precise[key]

    @cached_property
    def _precise(self) -> dict[object, PreciseEdits]:
        return {}

    def concept_scores(self, concept: str, cells: Mapping[str, StoredCell]) -> ConceptScores:
        """Finished cells of one concept at the headline's effect, by name in a comparison."""
        records = [cell.record for cell in cells.values()]
        classifiers = dict.fromkeys(name for r in records for name in r.judges)
        edits = {}
        for name, cell in cells.items():
            assert cell.scores is not None
            level = headline_level(cell.record.levels)
            seen = self._scored(cell.record, cell.scores)
            scores: dict[str, EditScores] = {}
            if level is not None and level.strength is not None:
                scores = {c: seen.logits_at(level.strength, c) for c in cell.record.judges}
            edits[name] = Edits(cell.scores.image_ids, scores)
        null = self.random_directions(concept)
        return ConceptScores(
            (self.name, concept),
            records[0].attributes,
            edits,
            {
                name: [self._scored(records[0], t).logits_at(s, name) for t, s in null]
                for name in classifiers
            },
            null[0][0].image_ids if null else (),
        )

    def _scored(self, record: CellRecord, table: ScoreTable) -> ScoredCell:
        assert record.attribute is not None
        return ScoredCell(table, record.attribute, record.judges, self.scales)


def sized_direction(direction: StoredCell, like: CellRecord, scales: ReferenceScales) -> StoredCell:
    """A random direction as an edit of one concept, at the headline's effect in either direction.

    Scores between two strengths that were run are interpolated. Where the effect is not reached,
    the strength with the largest effect stands. `like` is a record of the concept, matched in its
    effect.
    """
    headline, table = headline_level(like.levels), direction.scores
    assert headline is not None and table is not None and like.attribute is not None
    classifier = like.judges[0]
    column = table.attributes.index(like.attribute)
    k = table.classifiers.index(classifier)
    change = table.edit_logits[k, :, :, column] - table.reconstruction_logits[k, :, column]
    effects = np.abs(change).mean(1) / scales.spreads[classifier][column]
    found = strength_at_effect(table.strengths, effects, headline.goal)
    reached = found.status == "reached" and found.strength is not None
    strength = found.strength if reached else table.strengths[int(effects.argmax())]
    assert strength is not None
    level = Level(
        name=headline.name,
        goal=headline.goal,
        unit=headline.unit,
        status="reached" if reached else "not_reached",
        strength=strength if reached else None,
        largest=found.largest,
    )
    spent_once: dict[str, object] = {"seconds": {}, "unet_passes": {}, "fit_seconds": None}
    record = direction.record.model_copy(
        update={
            "kind": "edit",
            "concept": like.concept,
            "attribute": like.attribute,
            "strength": strength,
            "strength_chosen_on": "given",
            "strengths": (strength,),
            "levels": (level,),
            "full_effect": like.full_effect,
            "scores": None,
            "images": None,  # its files are those of the data set, not of a concept
            "provenance": direction.record.provenance.model_copy(update=spent_once),
        }
    )
    return StoredCell(record, table.interpolated(strength))


def compare_methods(
    datasets: Sequence[DatasetScores], metrics: Sequence[EditMetric] | None = None
) -> list[RunRecord]:
    """How all methods compare that are complete on these data sets; empty where none can be.

    Concepts without a test image that counts are left out, for all methods. Nothing but precise
    edits and EPR+ takes part; `metrics` are those measured beside them, whose versions the record
    names.
    """
    concepts = [(d, c) for d in datasets for c in d.concepts if d.random_directions(c)]
    names = sorted({name for d in datasets for name in d.methods})
    complete = [
        name for name in names if all(0 in d.methods.get(name, {}).get(c, {}) for d, c in concepts)
    ]
    # A concept whose target every test image shows before the edit says nothing of any method.
    concepts = [
        (d, c) for d, c in concepts
        if all(d.precise_edits(m, c, (0,)).eligible.any() for m in complete)
    ]  # fmt: skip
    if not complete or not concepts:
        return []
    matrix = ScoreMatrix(
        [d.concept_scores(c, {n: d.methods[n][c][0] for n in complete}) for d, c in concepts]
    )
    if not matrix.defined:
        return []
    first = datasets[0].methods[complete[0]][concepts[0][1]][0].record
    name = first.dataset if len(datasets) == 1 else ALL
    level = matched_level(first)
    # Fits that are there on every concept.
    fits = {
        m: sorted(set.intersection(*(set(d.methods[m][c]) for d, c in concepts))) for m in complete
    }
    headline = headline_matrix(datasets, concepts, fits)
    reached = {
        method: [matched_level(d.methods[method][c][0].record).status for d, c in concepts]
        for method in complete
    }
    comparison = compare(
        matrix,
        headline,
        level.name,
        derive_seed(first.seed, "comparison", name),
        fits={
            method: [
                [d.precise_edits(method, c, (fit,)).value for d, c in concepts]
                for fit in fits[method]
            ]
            for method in complete
        },
        wrong_way={m: statuses.count("wrong_way") for m, statuses in reached.items()},
        agreements=[
            agreement(c, headline, headline_matrix(datasets, concepts, fits, (c,)))
            for c in _common_classifiers(datasets, concepts, complete)
        ],
        incomplete=[name for name in names if name not in complete],
    )
    everywhere = len(datasets) > 1
    infos = metric_infos() if metrics is None else [m.info for m in metrics]
    return [
        RunRecord(
            kind="comparison",
            domain_kind=first.domain_kind,
            dataset=name,
            dataset_revision="" if everywhere else first.dataset_revision,
            suite=first.suite,
            seed=first.seed,
            attributes=() if everywhere else first.attributes,
            scorers={} if everywhere else first.scorers,
            backbone=None if everywhere else first.backbone,
            metric_versions={info.name: info.version for info in infos},
            comparison=comparison,
            provenance=first.provenance.model_copy(
                update={"seconds": {}, "unet_passes": {}, "fit_seconds": None}
            ),
        )
    ]


def headline_matrix(
    datasets: Sequence[DatasetScores],
    concepts: Sequence[tuple[DatasetScores, str]],
    fits: Mapping[str, Sequence[int]],
    classifiers: Sequence[str] | None = None,
) -> PreciseEditMatrix:
    """Precise edits of these fits of each method, by all classifiers or by some alone."""
    return PreciseEditMatrix(
        {
            (d.name, c): {m: d.precise_edits(m, c, own, classifiers) for m, own in fits.items()}
            for d, c in concepts
        }
    )


def _common_classifiers(
    datasets: Sequence[DatasetScores],
    concepts: Sequence[tuple[DatasetScores, str]],
    methods: Sequence[str],
) -> list[str]:
    """Those that score every method, where there are several."""
    judges = [d.methods[m][c][0].record.judges for d, c in concepts for m in methods]
    common = [name for name in judges[0] if all(name in own for own in judges)]
    return common if len(common) > 1 else []


def matched_level(record: CellRecord | RunRecord) -> Level:
    """The level of effect that methods are compared at.

    Raises:
        InvalidBenchmarkError: if the record has no levels.
    """
    levels: Sequence[Level] = record.levels
    level = headline_level(levels)
    if level is None:
        raise InvalidBenchmarkError(
            f"'{record.method}' was not matched in its effect on {record.concept}",
            hint="run it anew with this version",
        )
    return level


def _is_edit(cell: StoredCell) -> bool:
    return cell.record.kind == "edit" and cell.record.status == "done" and cell.scores is not None


def _place(cell: StoredCell) -> tuple[int, str, str, int]:
    r = cell.record
    column = r.attributes.index(r.attribute) if r.attribute in r.attributes else len(r.attributes)
    return column, r.concept or "", r.method or "", r.fit_seed
