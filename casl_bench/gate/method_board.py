"""All fits of one method on one data set's concepts, as a function of how images are weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from casl_bench.comparison.cell_scores import ConceptScores, Edits, Scoreboard
from casl_bench.comparison.signed_log import signed_exp
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.gate.precision_scale import from_scale, to_scale
from casl_bench.gate.run_side import Fits, RunSide, target_of
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.epr_signed import gain_column
from casl_bench.records.record import LevelResult, RunRecord


@dataclass(frozen=True)
class MethodBoard:
    """Scores of F fits on C concepts.

    Attributes:
        board: per-image scores; its methods are the fits, by number.
        reached: [F, C] bool, whether the effect was reached the right way.
        strengths: [F, C] at which it was, NaN elsewhere.
    """

    board: Scoreboard
    reached: NDArray[np.bool_]
    strengths: Array

    @property
    def images(self) -> int:
        """Distinct images, I."""
        return len(self.board.images)

    def precision(self, weights: Array) -> Array:
        """[R, F, C] EPR+ on the gate's scale, for weights [R, I] of the images."""
        return to_scale(np.asarray(signed_exp(self.board.scores(weights))))

    @cached_property
    def whole_precision(self) -> Array:
        """[F, C] `precision`, all images alike."""
        scores: Array = self.precision(np.ones((1, self.images)))[0]
        return scores

    @cached_property
    def whole_potency(self) -> Array:
        """[F, C] `potency`, all images alike."""
        scores: Array = self.potency(np.ones((1, self.images)))[0]
        return scores

    def joined(self, more: MethodBoard) -> MethodBoard:
        """These fits, and after them others on the same concepts and images."""
        concepts = []
        for own, others in zip(self.board.concepts, more.board.concepts, strict=True):
            edits = [*own.methods.values(), *others.methods.values()]
            concepts.append(replace(own, methods={str(f): e for f, e in enumerate(edits)}))
        return MethodBoard(
            Scoreboard(concepts),
            np.concatenate([self.reached, more.reached]),
            np.concatenate([self.strengths, more.strengths]),
        )

    def mean(self) -> float | None:
        """EPR+ back from the mean over fits and concepts; None where one has no number."""
        scores = self.whole_precision
        if not np.isfinite(scores).all():
            return None
        return float(from_scale(scores.mean(keepdims=True))[0, 0])

    def potency(self, weights: Array) -> Array:
        """[R, F, C] log of the target's change in sd a unit of strength; NaN where there is none.

        Args:
            weights: [R, I].
        """
        places = {image: place for place, image in enumerate(self.board.images)}
        result = np.full((len(weights), *self.strengths.shape), np.nan)
        for c, concept in enumerate(self.board.concepts):
            for f, edits in enumerate(concept.methods.values()):
                if not self.reached[f, c]:
                    continue
                own = weights[:, [places[concept.key[0], i] for i in edits.image_ids]]
                gains = gain_column(next(iter(edits.judged.values())))[:, 0]
                with np.errstate(divide="ignore", invalid="ignore"):
                    change = own @ gains / own.sum(1)
                    result[:, f, c] = np.log(change / self.strengths[f, c])
        return result


def method_board(side: RunSide, concepts: Mapping[str, Fits], fits: Sequence[int]) -> MethodBoard:
    """Read the per-image scores of a method's cells.

    Args:
        side: the run that they are of.
        concepts: concept → its fits, finished ones, all on one data set.
        fits: which of them.

    Raises:
        InvalidBenchmarkError: if scores, spreads or random draws are not there.
    """
    scores, levels = [], []
    for concept in concepts.values():
        records = [concept[fit] for fit in fits]
        scores.append(_concept_scores(side, records))
        levels.append([headline(record) for record in records])
    reached = np.array([[x.status == "reached" for x in own] for own in levels]).T
    strengths = np.array(
        [[np.nan if x.strength is None else x.strength for x in own] for own in levels]
    ).T
    return MethodBoard(Scoreboard(scores), reached, np.where(reached, strengths, np.nan))


def headline(record: RunRecord) -> LevelResult:
    """The level of effect that methods are compared at: the middle one.

    Raises:
        InvalidBenchmarkError: if the record has no levels.
    """
    effects = [level for level in record.levels if level.name.startswith("effect_")]
    if not effects:
        raise InvalidBenchmarkError(
            f"'{record.method}' was not matched in its effect on {record.concept}",
            mend="run it anew with this version",
        )
    return effects[len(effects) // 2]


def _concept_scores(side: RunSide, records: Sequence[RunRecord]) -> ConceptScores:
    some = records[0]
    key, judge, target = (some.dataset, some.concept or ""), some.judges[0], target_of(some)
    spread = side.spread(some.dataset, judge)
    edits = {}
    for record in records:
        table, strength = side.scores(record), headline(record).strength
        judged = {} if strength is None else {
            judge: table.at(strength, target, spread, classifier=judge)
        }  # fmt: skip
        edits[str(record.fit_seed)] = Edits(table.image_ids, judged)
    draws = [r for r in side.draws.get(key, []) if r.status == "done" and r.strength is not None]
    if not draws:
        raise InvalidBenchmarkError(
            f"no random draw of {some.concept} is there to compare with", where=str(side.where)
        )
    null = [side.scores(r).at(r.strength or 0.0, target, spread, classifier=judge) for r in draws]
    return ConceptScores(key, some.attributes, edits, {judge: null})
