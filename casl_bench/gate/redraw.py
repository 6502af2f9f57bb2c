"""Runs that could have been, drawn from stored per-image scores, with a change planted or none.

One draw of a data set's images serves both sides and all concepts, as in a real pair of runs. Fits
are drawn for each concept apart. The head has another fit than the base where a change of code
shifts random numbers, and the same one where it does not: how often is a choice of the simulation.
With other fits throughout it is the worst case of no change at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from casl_bench.comparison.cell_scores import ConceptScores, Edits, Scoreboard
from casl_bench.gate.method_board import MethodBoard
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr_signed import gain_column

Places = NDArray[np.intp]

LARGEST = 3.0
"""Strength beyond which a matched edit counts as not reached: the end of the suites' grid."""


@dataclass(frozen=True)
class Drawn:
    """One fit on one concept, as a run would have recorded it.

    Attributes:
        scores: per image; None where the effect was not reached.
        reached: the right way.
        strength: at which.
    """

    scores: EditScores | None
    reached: bool
    strength: float


Plant = Callable[[Drawn], Drawn]
"""What a change of code does to a fit."""


def nothing(fit: Drawn) -> Drawn:
    """No change."""
    return fit


def loss(share: float) -> Plant:
    """The target moves less for the same damage: EPR+ falls by this share."""

    def plant(fit: Drawn) -> Drawn:
        if fit.scores is None:
            return fit
        change = fit.scores.edit - fit.scores.base
        change[:, fit.scores.target] *= 1 - share
        return replace(fit, scores=replace(fit.scores, edit=fit.scores.base + change))

    return plant


def wrong_sign(fit: Drawn) -> Drawn:
    """Every change the other way round."""
    return _matched(fit, -1.0, None)


def half_strength(fit: Drawn) -> Drawn:
    """Each unit of strength does half of what it did; matching makes up for it."""
    return _matched(fit, 0.5, None)


def shuffled_decoder(fit: Drawn) -> Drawn:
    """Changes go to other attributes: what moved the target moves its neighbour in the list."""
    return _matched(fit, 1.0, 1)


BROKEN: Mapping[str, Plant] = {
    "wrong sign": wrong_sign,
    "half strength": half_strength,
    "shuffled decoder": shuffled_decoder,
}


def _matched(fit: Drawn, factor: float, roll: int | None) -> Drawn:
    """Change the response to strength, then match the effect anew as a run does."""
    if fit.scores is None:
        return fit
    scores = fit.scores
    change = (scores.edit - scores.base) / scores.spread * factor
    if roll is not None:
        change = np.roll(change, roll, axis=1)
    goal = float(gain_column(scores).mean())
    edited = replace(scores, edit=scores.base + change * scores.spread)
    now = float(gain_column(edited).mean())
    scale = abs(goal / now) if now else math.inf
    if fit.strength * scale > LARGEST:
        return Drawn(None, False, math.nan)
    edited = replace(scores, edit=scores.base + scale * change * scores.spread)
    return Drawn(edited, fit.reached and now * goal > 0, fit.strength * scale)


def draw_images(board: MethodBoard, rng: np.random.Generator) -> dict[str, int]:
    """Image id → how often it is drawn, as many in all as there are."""
    names = [image for _, image in board.board.images]
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
    return dict(zip(names, map(int, counts), strict=True))


def draw_fits(
    board: MethodBoard, fits: int, rng: np.random.Generator, shared: float = 0.0
) -> tuple[Places, Places]:
    """Places [fits, C] of stored fits, for base and head, with replacement.

    Args:
        board: what is stored.
        fits: how many of each concept.
        rng: draws them.
        shared: probability that the head has the base's fit, rather than one drawn by itself.
    """
    stored, concepts = board.reached.shape
    base, head = rng.integers(stored, size=(2, fits, concepts))
    return base, np.where(rng.random(base.shape) < shared, base, head)


def draw_board(
    board: MethodBoard, images: Mapping[str, int], fits: Places, plant: Plant = nothing
) -> MethodBoard:
    """One side of a run that could have been.

    Args:
        board: what is stored.
        images: from `draw_images`, the same for both sides.
        fits: from `draw_fits`.
        plant: what the side's code does to each.
    """
    concepts, reached, strengths = [], [], []
    for c, concept in enumerate(board.board.concepts):
        own: list[Drawn] = []
        edits: dict[str, Edits] = {}
        methods = list(concept.methods.values())
        index, ids = _rows(methods[0].image_ids, images)
        judge = next(iter(concept.null))
        for place, f in enumerate(fits[:, c]):
            scores = methods[f].judged.get(judge)
            taken = None if scores is None else scores.take(index)
            fit = plant(Drawn(taken, bool(board.reached[f, c]), float(board.strengths[f, c])))
            own.append(fit)
            edits[str(place)] = Edits(ids, {} if fit.scores is None else {judge: fit.scores})
        null = {judge: [draw.take(index) for draw in concept.null[judge]]}
        concepts.append(ConceptScores(concept.key, concept.attributes, edits, null))
        reached.append([fit.reached for fit in own])
        strengths.append([fit.strength if fit.reached else math.nan for fit in own])
    return MethodBoard(Scoreboard(concepts), np.array(reached).T, np.array(strengths).T)


def _rows(ids: Sequence[str], images: Mapping[str, int]) -> tuple[list[int], tuple[str, ...]]:
    """Rows of a concept's images as often as they were drawn, and ids that tell copies apart."""
    index = [i for i, name in enumerate(ids) for _ in range(images[name])]
    names = tuple(f"{name}~{copy}" for name in ids for copy in range(images[name]))
    return index, names
