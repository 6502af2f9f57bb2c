"""Precise edits of every method on every concept: what ranks methods.

Each method counts at one of the strengths that its test images were edited at, the one that is best
on validation images. Images are paired: all methods edit the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from casl_bench.analysis.measure import (
    PRECISE_EDITS,
    ScoredCell,
    best_strength,
    outcomes_at,
    response_of_curve,
    response_of_table,
)
from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.precise_edits import TOLERANCES, image_outcomes
from casl_bench.results.record import CellRecord, CurvePoint, Measurement, ReferenceScales
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import StoredCell


def scored_cell(record: CellRecord, table: ScoreTable, scales: ReferenceScales) -> ScoredCell:
    """A cell's table with its target and its classifiers."""
    assert record.attribute is not None
    return ScoredCell(table, record.attribute, record.judges, scales)


def response(stored: StoredCell, scales: ReferenceScales) -> dict[float, float]:
    """Strength > 0 → headline on the validation images; empty where none were scored."""
    if stored.validation is None:
        return response_of_curve(stored.curve)
    return response_of_table(scored_cell(stored.record, stored.validation, scales))


def response_curve(stored: StoredCell, scales: ReferenceScales) -> tuple[CurvePoint, ...]:
    """The same as it is published: to six digits, in place of the validation images' scores."""
    return tuple(
        CurvePoint(
            strength=strength,
            measurements={PRECISE_EDITS: Measurement.of(float(f"{value:.6g}"), 0, "share")},
        )
        for strength, value in response(stored, scales).items()
    )


@dataclass(frozen=True)
class PreciseEdits:
    """One method on one concept, at its strength.

    Attributes:
        image_ids: of the n test images.
        credit: [n] share of the tolerances at which an image is a precise edit; over several fits
            their mean.
        eligible: [n] whether it counts: the target was not there before.
        flipped: [n] share of the fits in which every classifier sees the target flip.
    """

    image_ids: tuple[str, ...]
    credit: Array
    eligible: NDArray[np.bool_]
    flipped: Array

    @property
    def value(self) -> float:
        """Mean credit of the eligible images; 0 where there is none."""
        return float(self.credit.sum() / max(int(self.eligible.sum()), 1))


def precise_edits(
    cells: Sequence[StoredCell],
    scales: ReferenceScales,
    classifiers: Sequence[str] | None = None,
    tolerances: Sequence[float] = TOLERANCES,
) -> PreciseEdits:
    """One or more fits of a method on one concept, on the same images.

    Args:
        cells: finished edits with scores.
        scales: the units.
        classifiers: which decide; default all that score the cell.
        tolerances: over which the credit is a mean.

    Raises:
        InputError: without a cell, or of fits on different images.
    """
    if not cells or len({c.scores.image_ids for c in cells if c.scores}) != 1:
        raise InputError("fits are compared on the same images")
    found = []
    for stored in cells:
        assert stored.scores is not None
        strength = best_strength(stored.record, stored.scores, response(stored, scales))
        cell = scored_cell(stored.record, stored.scores, scales)
        if classifiers is None:
            found.append(outcomes_at(cell, strength))
        else:
            panel = [cell.logits_at(strength, name) for name in classifiers]
            panel[0] = cell.with_guards(strength, panel[0])
            found.append(image_outcomes(panel))
    first = cells[0].scores
    assert first is not None
    return PreciseEdits(
        first.image_ids,
        np.mean([o.credit(tolerances) for o in found], axis=0),
        found[0].eligible,
        np.mean([o.flipped & o.eligible for o in found], axis=0),
    )


class PreciseEditMatrix:
    """Precise edits of M methods on C concepts as a function of how images are weighted.

    Args:
        concepts: (data set, concept) → method → its edits, each concept with the same methods.

    Attributes:
        methods: M names, in the order of the scores.
        images: I distinct (data set, image id) pairs, in the order of the weights.

    Raises:
        InputError: if the methods differ between concepts, or there is no concept.
    """

    def __init__(self, concepts: Mapping[tuple[str, str], Mapping[str, PreciseEdits]]) -> None:
        if not concepts:
            raise InputError("there is no concept to compare methods on")
        self.concepts = dict(concepts)
        self.methods = tuple(next(iter(concepts.values())))
        if any(set(own) != set(self.methods) for own in concepts.values()):
            raise InputError("concepts with different methods cannot be compared")
        self.images = tuple(
            dict.fromkeys(
                (dataset, image)
                for (dataset, _), own in concepts.items()
                for edits in own.values()
                for image in edits.image_ids
            )
        )
        self._places = {image: place for place, image in enumerate(self.images)}

    def scores(self, weights: Array) -> Array:
        """[R, M, C] shares of precise edits under weightings [R, I] >= 0 of the images.

        NaN where no eligible image of a concept has a weight.
        """
        result = np.empty((len(weights), len(self.methods), len(self.concepts)))
        for c, ((dataset, _), own) in enumerate(self.concepts.items()):
            for m, method in enumerate(self.methods):
                edits = own[method]
                index = [self._places[dataset, image] for image in edits.image_ids]
                chosen = weights[:, index]
                with np.errstate(divide="ignore", invalid="ignore"):
                    result[:, m, c] = (chosen @ edits.credit) / (chosen @ edits.eligible)
        return result
