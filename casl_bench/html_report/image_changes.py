"""What one edit did to one image: the change of every attribute, in σ, from the stored scores.

A record tells each attribute's mean change in σ (`drift`); the stored logits tell it in logits.
Their ratio is the σ of that logit, which no file of a run folder holds by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.record import RunRecord

Floats = NDArray[np.float64]
_LEAST = 0.001
"""Of a smaller mean change in σ, rounding is no small part: it tells no σ."""


@dataclass(frozen=True)
class ImageChanges:
    """Changes against the reconstruction.

    Attributes:
        attributes: A names.
        strengths: S strengths.
        changes: [S, n, A] in σ; NaN where an attribute's σ is not known.
    """

    attributes: tuple[str, ...]
    strengths: tuple[float, ...]
    changes: Floats

    def at(self, strength: float, image: int) -> dict[str, float | None]:
        """Attribute → change of an image at a strength, None where unknown; {} without scores."""
        if strength not in self.strengths or image >= self.changes.shape[1]:
            return {}
        row = self.changes[self.strengths.index(strength), image]
        return {
            name: None if np.isnan(value) else round(float(value), 4)
            for name, value in zip(self.attributes, row, strict=True)
        }


def logit_spreads(scored: Sequence[tuple[RunRecord, ScoreTable]]) -> dict[tuple[str, str], float]:
    """(judge, attribute) → σ of the logit, from the record that moved the attribute most.

    Args:
        scored: records of one data set with their scores.
    """
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for record, table in scored:
        if record.strength not in table.strengths:
            continue
        judge = judge_of(record, table)
        moved = _logit_changes(table, judge)[table.strengths.index(record.strength)].mean(axis=0)
        for attribute, change in zip(table.attributes, moved, strict=True):
            drift = record.drift.get(attribute)
            place = (judge, attribute)
            if drift is None or abs(drift) < max(_LEAST, best.get(place, (0.0, 0.0))[0]):
                continue
            best[place] = (abs(drift), float(change) / drift)
    return {place: spread for place, (_, spread) in best.items() if spread > 0}


def image_changes(
    record: RunRecord, table: ScoreTable, spreads: Mapping[tuple[str, str], float]
) -> ImageChanges:
    """The changes of all images of a cell."""
    judge = judge_of(record, table)
    sd = np.array([spreads.get((judge, a), np.nan) for a in table.attributes])
    return ImageChanges(table.attributes, table.strengths, _logit_changes(table, judge) / sd)


def judge_of(record: RunRecord, table: ScoreTable) -> str:
    """The classifier that decides a record's numbers."""
    return record.judges[0] if record.judges else table.classifiers[0]


def _logit_changes(table: ScoreTable, judge: str) -> Floats:
    """[S, n, A] edit minus reconstruction."""
    k = table.classifiers.index(judge)
    return np.asarray(table.edit_logits[k] - table.reconstruction_logits[k])
