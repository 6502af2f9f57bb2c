"""EPR+ of every method on every concept as a function of how images are weighted.

What is resampled, left out or judged by another classifier is a change of the arguments here; the
number is computed from per-image scores each time, never from other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from casl_bench.comparison.signed_log import signed_log
from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr_signed import floored_columns, floored_ratio, gain_column

ConceptKey = tuple[str, str]
"""(data set, concept)."""


@dataclass(frozen=True)
class Edits:
    """One method on one concept, at equal effect.

    Attributes:
        image_ids: of the n test images, in the order of the scores.
        judged: judge → scores; empty where the effect was not reached.
    """

    image_ids: tuple[str, ...]
    judged: Mapping[str, EditScores] = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptScores:
    """All methods on one concept.

    Attributes:
        key: data set and concept.
        attributes: of the classifiers' columns.
        methods: method → its edits; every method has one.
        null: judge → scores of the random draws on the same images.
    """

    key: ConceptKey
    attributes: tuple[str, ...]
    methods: Mapping[str, Edits]
    null: Mapping[str, Sequence[EditScores]]


class Scoreboard:
    """Signed logs of EPR+, methods by concepts.

    Args:
        concepts: C of them, each with the same M methods.

    Attributes:
        methods: M names, in the order of the scores.
        images: I distinct (data set, image id) pairs, in the order of the weights.

    Raises:
        InputError: if the methods differ between concepts, or there is no concept.
    """

    def __init__(self, concepts: Sequence[ConceptScores]) -> None:
        if not concepts:
            raise InputError("there is no concept to compare methods on")
        self.concepts = tuple(concepts)
        self.methods = tuple(concepts[0].methods)
        if any(set(c.methods) != set(self.methods) for c in concepts):
            raise InputError("concepts with different methods cannot be compared")
        places: dict[tuple[str, str], int] = {}
        for concept in concepts:
            for edits in concept.methods.values():
                for image in edits.image_ids:
                    places.setdefault((concept.key[0], image), len(places))
        self.images = tuple(places)
        self._places = places

    def scores(
        self, weights: Array, judge: str | None = None, without: tuple[str, str] | None = None
    ) -> Array:
        """sign(x) log(1 + |x|) of x = EPR+; 0 where the effect was not reached.

        Args:
            weights: [R, I] >= 0, how often each image counts; normalised within a concept here.
            judge: by which classifier; default the one that decides.
            without: (data set, attribute) that is left out of the others there.

        Returns:
            [R, M, C]; not finite where no image of a concept has a weight, or where the random
            draws of a concept move nothing.
        """
        result = np.empty((len(weights), len(self.methods), len(self.concepts)))
        for c, concept in enumerate(self.concepts):
            left_out = None
            if without is not None and without[0] == concept.key[0]:
                left_out = concept.attributes.index(without[1])
            null: dict[tuple[str, tuple[str, ...]], Array] = {}
            for m, method in enumerate(self.methods):
                edits = concept.methods[method]
                own = self._own(weights, concept.key[0], edits.image_ids)
                if not edits.judged:
                    result[:, m, c] = np.where(np.isnan(own).any(1), np.nan, 0.0)
                    continue
                name = judge if judge is not None else next(iter(edits.judged))
                place = (name, edits.image_ids)
                if place not in null:
                    null[place] = _null(own, concept.null[name], left_out)
                scores = _without(edits.judged[name], left_out)
                columns = floored_columns(gain_column(scores), scores)
                # Over random draws that moved nothing there is no ratio: not finite.
                with np.errstate(divide="ignore", invalid="ignore"):
                    result[:, m, c] = signed_log(floored_ratio(own @ columns) / null[place])
        return result

    @property
    def defined(self) -> bool:
        """Whether every score is a number on all images: draws that move nothing leave none."""
        return bool(np.isfinite(self.scores(np.ones((1, len(self.images))))).all())

    def _own(self, weights: Array, dataset: str, image_ids: Sequence[str]) -> Array:
        """[R, n] weights of a concept's images, of sum 1; NaN where all are 0."""
        index: NDArray[np.intp] = np.array([self._places[dataset, i] for i in image_ids])
        own = weights[:, index]
        with np.errstate(invalid="ignore"):
            normalised: Array = own / own.sum(1, keepdims=True)
        return normalised


def _null(weights: Array, draws: Sequence[EditScores], left_out: int | None) -> Array:
    """[R] geometric mean of the random draws' unsigned EPR, see `random_epr`."""
    logs = []
    for draw in draws:
        scores = _without(draw, left_out)
        columns = floored_columns(np.abs(gain_column(scores)), scores)
        with np.errstate(divide="ignore"):  # a draw that moves nothing: -inf, not a number below
            logs.append(np.log(floored_ratio(weights @ columns)))
    geometric: Array = np.exp(np.mean(logs, axis=0))
    return geometric


def _without(scores: EditScores, column: int | None) -> EditScores:
    """The scores without an attribute's column; as they are where that is the target's."""
    if column is None or column == scores.target:
        return scores
    keep = [j for j in range(scores.base.shape[1]) if j != column]
    return EditScores(
        scores.source[:, keep],
        scores.base[:, keep],
        scores.edit[:, keep],
        keep.index(scores.target),
        scores.sign,
        scores.spread[keep],
    )
