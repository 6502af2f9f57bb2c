"""One side of a comparison: the cells of a run folder, and the per-image scores of its fits.

`read_side` and `RunSide` are the only places of the gate that know how a run is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from casl_bench.analysis.analyse import RANDOM_DIRECTION, DatasetScores, group_cells, matched_level
from casl_bench.analysis.comparison import ConceptScores, ScoreMatrix
from casl_bench.analysis.controls import check_bounds
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.gate.verdict import Quantity
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.epr_plus import gain_column, signed_exp, signed_log
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import read_cells

CellName = tuple[str, str]
"""(data set, method): what gets a verdict."""

Fits = Mapping[int, RunRecord]
"""Fit seed → record."""


@dataclass
class RunSide:
    """A run folder.

    Attributes:
        where: the folder.
        store: of its records.
        records: all numbers.
        edits: (data set, method) → concept → fits, controls left out.
        random: (data set, concept) → records of the random directions, by seed.
        datasets: data set → its per-image scores.
    """

    where: Path
    store: RecordStore
    records: list[RunRecord] = field(default_factory=list)
    edits: dict[CellName, dict[str, dict[int, RunRecord]]] = field(default_factory=dict)
    random: dict[tuple[str, str], list[RunRecord]] = field(default_factory=dict)
    datasets: dict[str, DatasetScores] = field(default_factory=dict)

    def scores(self, record: RunRecord) -> ScoreTable:
        """Per-image scores of a finished edit.

        Raises:
            InvalidBenchmarkError: if it has none.
        """
        key = CellKey.of(record)
        cell = self.datasets[record.dataset].by_place.get(key)
        if cell is None or cell.scores is None:
            where = str(self.store.folder(key))
            raise InvalidBenchmarkError("a finished edit has no scores", where=where)
        return cell.scores

    def concept_scores(self, records: Sequence[RunRecord]) -> ConceptScores:
        """Per-image scores, at equal effect, of fits of one method on one concept.

        Raises:
            InvalidBenchmarkError: if scores, spreads or random directions are missing.
        """
        some = records[0]
        scores, concept = self.datasets[some.dataset], some.concept or ""
        cells = {str(r.fit_seed): scores.by_place[CellKey.of(r)] for r in records}
        found = scores.concept_scores(concept, cells)
        if not found.null_image_ids:
            raise InvalidBenchmarkError(
                f"no random direction of {concept} to compare with", where=str(self.where)
            )
        return found


def read_side(folder: Path) -> RunSide:
    """Read a run folder, refusing one whose numbers mean nothing.

    Raises:
        UsageError: if it holds no record.
        InvalidBenchmarkError: on a corrupt record, or a control out of its bounds.
    """
    datasets = {d.name: d for d in group_cells(read_cells(folder))}
    # Not `analyse`, which would compare the methods with each other.
    numbers = [record for scores in datasets.values() for record in scores.numbers()]
    side = RunSide(folder, RecordStore(folder), numbers, datasets=datasets)
    if not side.records:
        raise UsageError("no records", where=str(folder), hint="give the folder of a finished run")
    for record in side.records:
        if record.kind != "edit":
            continue
        method, concept = record.method or "", record.concept or ""
        if method == RANDOM_DIRECTION and record.beside is None:
            side.random.setdefault((record.dataset, concept), []).append(record)
        elif not record.control:
            cell = side.edits.setdefault((record.dataset, method), {})
            cell.setdefault(concept, {})[record.fit_seed] = record
    for records in side.random.values():
        records.sort(key=lambda r: r.fit_seed)
    check_bounds(side.records, folder)
    return side


def is_run(folder: Path) -> bool:
    """Whether a folder holds any cell."""
    return any((folder / "cells").glob("*/*/*/record.json"))


def matched_fits(cells: Mapping[str, Fits]) -> tuple[dict[str, Fits], list[int]]:
    """Concepts with their finished fits of matched effect, and the seeds that all of these have."""
    matched: dict[str, Fits] = {}
    for concept, fits in cells.items():
        if own := {k: r for k, r in fits.items() if r.status == "done" and r.levels}:
            matched[concept] = own
    return matched, sorted(set.intersection(*map(set, matched.values()))) if matched else []


# The scale on which the gate compares EPR+: a log ratio wherever there is one.

UNIT = 0.1
"""The scale is logarithmic above this EPR+: a tenth of what a random direction has."""


def to_scale(precision: Array) -> Array:
    """sign(x) log(1 + |x| / UNIT) of x = EPR+, which is 0 where the effect was not reached.

    Differences are log ratios, shortened by x / (x + UNIT): a loss of 10 % counts as 9.6 % at
    EPR+ 1 and as 9.98 % at 20. The wrong way is negative, so every cell has a place.

    Source: ours.
    """
    scaled: Array = signed_log(precision / UNIT)
    return scaled


def from_scale(value: Array) -> Array:
    """EPR+ at a place of the scale: the inverse of `to_scale`."""
    precision: Array = signed_exp(value) * UNIT
    return precision


@dataclass(frozen=True)
class FitScoreMatrix:
    """Scores of F fits of one method on C concepts of one data set.

    Attributes:
        matrix: per-image scores; its methods are the fits, by number.
        reached: [F, C] whether the effect was reached the right way.
        strengths: [F, C] at which it was, NaN elsewhere.
    """

    matrix: ScoreMatrix
    reached: NDArray[np.bool_]
    strengths: Array

    @classmethod
    def read(
        cls, side: RunSide, concepts: Mapping[str, Fits], fits: Sequence[int]
    ) -> FitScoreMatrix:
        """The scores of fits of these seeds of a method; concepts are all on one data set.

        Raises:
            InvalidBenchmarkError: if scores, spreads or random directions are missing.
        """
        records = [[concept[fit] for fit in fits] for concept in concepts.values()]
        levels = [[matched_level(record) for record in own] for own in records]
        reached = np.array([[x.status == "reached" for x in own] for own in levels]).T
        strengths = np.array(
            [[np.nan if x.strength is None else x.strength for x in own] for own in levels]
        ).T
        matrix = ScoreMatrix([side.concept_scores(own) for own in records])
        return cls(matrix, reached, np.where(reached, strengths, np.nan))

    @property
    def images(self) -> int:
        """Number of distinct images, I."""
        return len(self.matrix.images)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names of the C concepts."""
        return tuple(concept.key[1] for concept in self.matrix.concepts)

    def weighted(self, quantity: Quantity, weights: Array) -> Array:
        """[R, F, C] of a quantity under weights [R, I] of the images."""
        if quantity == "precision":
            return to_scale(np.asarray(signed_exp(self.matrix.scores(weights))))
        return self._effect_per_unit_strength(weights)

    @cached_property
    def precision(self) -> Array:
        """[F, C] EPR+ on the gate's scale, all images weighted equally."""
        scores: Array = self.weighted("precision", np.ones((1, self.images)))[0]
        return scores

    @cached_property
    def effect_per_unit_strength(self) -> Array:
        """[F, C] log of the target's change in sd per unit of strength; NaN where undefined."""
        scores: Array = self.weighted("effect_per_unit_strength", np.ones((1, self.images)))[0]
        return scores

    def mean_epr_plus(self) -> float | None:
        """EPR+ back from the mean over fits and concepts; None where one is undefined."""
        if not np.isfinite(self.precision).all():
            return None
        return float(from_scale(self.precision.mean(keepdims=True))[0, 0])

    def joined(self, more: FitScoreMatrix) -> FitScoreMatrix:
        """These fits followed by others on the same concepts and images."""
        concepts = []
        for own, others in zip(self.matrix.concepts, more.matrix.concepts, strict=True):
            edits = [*own.methods.values(), *others.methods.values()]
            concepts.append(replace(own, methods={str(f): e for f, e in enumerate(edits)}))
        return FitScoreMatrix(
            ScoreMatrix(concepts),
            np.concatenate([self.reached, more.reached]),
            np.concatenate([self.strengths, more.strengths]),
        )

    def _effect_per_unit_strength(self, weights: Array) -> Array:
        places = {image: place for place, image in enumerate(self.matrix.images)}
        result = np.full((len(weights), *self.strengths.shape), np.nan)
        for c, concept in enumerate(self.matrix.concepts):
            for f, edits in enumerate(concept.methods.values()):
                if not self.reached[f, c]:
                    continue
                own = weights[:, [places[concept.key[0], i] for i in edits.image_ids]]
                gains = gain_column(next(iter(edits.scores.values())))[:, 0]
                with np.errstate(divide="ignore", invalid="ignore"):
                    change = own @ gains / own.sum(1)
                    result[:, f, c] = np.log(change / self.strengths[f, c])
        return result
