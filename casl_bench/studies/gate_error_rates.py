"""How often the gate errs: measured on runs drawn from a run's stored per-image scores.

Rates are of whole gate runs, with Holm's adjustment over all their cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from casl_bench.analysis.comparison import ConceptScores, Edits, ScoreMatrix
from casl_bench.core.errors import UsageError
from casl_bench.gate.gate import decide, red
from casl_bench.gate.log_ratio import (
    CellName,
    Measured,
    MethodBoard,
    RunSide,
    measure,
    method_board,
)
from casl_bench.gate.verdict import ALPHA_OF_TWO_LOOKS, MIN_FITS, CellVerdict, Verdict
from casl_bench.metrics.epr_plus import gain_column
from casl_bench.report.markdown import number, table
from casl_bench.results.score_table import EditScores

# What a change of code did to fits of the same seeds, and how often new fits would show it.


_RUNS = 20_000
"""Runs of normal log ratios: a rate of one half has a standard error of 0.4 %."""


@dataclass(frozen=True)
class PairedLoss:
    """What a change did to fits of the same seeds.

    Attributes:
        log_ratio: of precision, head over base, mean over concepts and pairs.
        sd: of the mean over concepts, between pairs.
        pairs: how many.
        power: share of runs with other seeds that would fail, were their log ratios normal.
    """

    log_ratio: float
    sd: float
    pairs: int
    power: float


def paired_loss(
    base: MethodBoard, head: MethodBoard, seed: int, fits: int = MIN_FITS
) -> PairedLoss:
    """The measured change, and how often new fits that it changes as much would show it.

    A run drawn from few stored fits holds copies and so varies less than a run of new ones;
    normal log ratios of the measured mean and standard deviation do not.

    Args:
        base: F >= 2 fits.
        head: the fits of the same seeds, of other code.
        seed: of what is drawn.
        fits: paired fits of a run.
    """
    changes = (head.whole_precision - base.whole_precision).mean(1)
    mean, sd = float(changes.mean()), float(changes.std(ddof=1))
    drawn = np.random.default_rng(seed).normal(mean, sd, (_RUNS, fits))
    return PairedLoss(mean, sd, len(changes), float(red(drawn).mean()))


def check_pairs(name: CellName, base: MethodBoard, head: MethodBoard) -> None:
    """Raises UsageError unless both sides have the same concepts and fits."""
    for what, of in (("concepts", _concepts), ("fits", _fits)):
        if of(base) != of(head):
            raise UsageError(
                f"the runs have other {what} of {name[0]}/{name[1]}",
                where=f"{', '.join(of(base))} against {', '.join(of(head))}",
                mend="run both on the same concepts with the same --fit-seeds",
            )


def _concepts(board: MethodBoard) -> tuple[str, ...]:
    return tuple(concept.key[1] for concept in board.board.concepts)


def _fits(board: MethodBoard) -> tuple[str, ...]:
    return tuple(board.board.concepts[0].methods)


# Runs that could have been, drawn from stored per-image scores, with a change planted or none.


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
        of_null, null_ids = _rows(concept.null_image_ids, images)
        null = {judge: [draw.take(of_null) for draw in concept.null[judge]]}
        concepts.append(ConceptScores(concept.key, concept.attributes, edits, null, null_ids))
        reached.append([fit.reached for fit in own])
        strengths.append([fit.strength if fit.reached else math.nan for fit in own])
    return MethodBoard(ScoreMatrix(concepts), np.array(reached).T, np.array(strengths).T)


def _rows(ids: Sequence[str], images: Mapping[str, int]) -> tuple[list[int], tuple[str, ...]]:
    """Rows of a concept's images as often as they were drawn, and ids that tell copies apart."""
    index = [i for i, name in enumerate(ids) for _ in range(images[name])]
    names = tuple(f"{name}~{copy}" for name in ids for copy in range(images[name]))
    return index, names


PLANTED = 0.1
"""Share of EPR+ that the planted loss takes."""

_Sides = tuple[MethodBoard, MethodBoard]

BROKEN_RUNS = 20
"""Runs of each broken method, for each cell."""


@dataclass(frozen=True)
class Rates:
    """What was counted.

    Attributes:
        runs: A/A runs, and runs with a loss for each cell.
        false_alarms: A/A runs with any FAIL, looking once.
        false_alarms_of_two: the same, looking once more where the first look is inconclusive.
        caught: cell → runs with a planted loss in it that fail there, looking once.
        caught_of_two: the same, looking once more.
        broken: name of the fault → runs in which it was caught, of `BROKEN_RUNS` a cell.
        cells: how many were gated together.
    """

    runs: int
    false_alarms: int
    false_alarms_of_two: int
    caught: Mapping[CellName, int]
    caught_of_two: Mapping[CellName, int]
    broken: Mapping[str, int]
    cells: int


def stored_boards(side: RunSide) -> dict[CellName, MethodBoard]:
    """Every method of a run with all fits that its concepts have in common.

    Raises:
        UsageError: if none has two fits.
    """
    boards = {}
    for name, concepts in side.edits.items():
        common = sorted(set.intersection(*map(set, concepts.values())))
        done = all(r.status == "done" for fits in concepts.values() for r in fits.values())
        if len(common) >= 2 and done:
            boards[name] = method_board(side, concepts, common)
    if not boards:
        raise UsageError("no method has two fits", where=str(side.where),
                         mend=f"run it with --fit-seeds {MIN_FITS}")  # fmt: skip
    return boards


def measure_rates(
    boards: Mapping[CellName, MethodBoard],
    runs: int,
    seed: int,
    fits: int = MIN_FITS,
    shared: float = 0.0,
) -> Rates:
    """Draw runs, gate them, count.

    Args:
        boards: stored fits of every cell.
        runs: A/A runs, and runs with a loss for each cell.
        seed: of what is drawn.
        fits: paired fits of a run; twice as many once extended.
        shared: see `draw_fits`.
    """
    rng = np.random.default_rng(seed)
    looks = [_looks(boards, {}, fits, rng, shared) for _ in range(runs)]
    caught, later = {}, {}
    for name in boards:
        found = [_looks(boards, {name: loss(PLANTED)}, fits, rng, shared) for _ in range(runs)]
        caught[name] = sum(name in first for first, _ in found)
        later[name] = sum(name in both for _, both in found)
    broken = {
        fault: sum(
            name in _looks(boards, {name: plant}, fits, rng, shared)[0]
            for name in boards
            for _ in range(BROKEN_RUNS)
        )
        for fault, plant in BROKEN.items()
    }
    return Rates(
        runs=runs,
        false_alarms=sum(bool(first) for first, _ in looks),
        false_alarms_of_two=sum(bool(both) for _, both in looks),
        caught=caught,
        caught_of_two=later,
        broken=broken,
        cells=len(boards),
    )


def caught_against(
    base: Mapping[CellName, MethodBoard],
    head: Mapping[CellName, MethodBoard],
    runs: int,
    seed: int,
    fits: int = MIN_FITS,
    shared: float = 0.0,
) -> dict[CellName, int]:
    """Runs drawn from two real runs, head against base: how many fail, a cell by itself.

    Args:
        base: stored fits of each cell.
        head: those of other code, on the same images.
        runs: to draw, for each cell.
        seed: of what is drawn.
        fits: paired fits of a run.
        shared: probability that the head has the fit of the base's seed; see `draw_fits`.

    Raises:
        UsageError: if a cell has other concepts, or other fits, on the two sides.
    """
    rng = np.random.default_rng(seed)
    caught = {}
    for name in (name for name in base if name in head):
        check_pairs(name, base[name], head[name])
        failed = 0
        for _ in range(runs):
            images = draw_images(base[name], rng)
            places = draw_fits(base[name], fits, rng, shared)
            sides = (
                draw_board(base[name], images, places[0]),
                draw_board(head[name], images, places[1]),
            )
            failed += name in _failed(decide(*_measured({name: sides}, seed)))
        caught[name] = failed
    return caught


def _looks(
    boards: Mapping[CellName, MethodBoard],
    plants: Mapping[CellName, Plant],
    fits: int,
    rng: np.random.Generator,
    shared: float,
) -> tuple[set[CellName], set[CellName]]:
    """The cells that fail in a gate run that looks once, and in one that may look twice."""
    seed = int(rng.integers(2**62))
    images: dict[str, dict[str, int]] = {}
    for name, board in boards.items():
        images.setdefault(name[0], draw_images(board, np.random.default_rng(seed)))

    def draw() -> dict[CellName, _Sides]:
        drawn = {}
        for name, board in boards.items():
            places = draw_fits(board, fits, rng, shared)
            drawn[name] = (
                draw_board(board, images[name[0]], places[0]),
                draw_board(board, images[name[0]], places[1], plants.get(name, nothing)),
            )
        return drawn

    pairs = draw()
    measured = _measured(pairs, seed)
    single, first = decide(*measured), decide(*measured, ALPHA_OF_TWO_LOOKS)
    if not any(c.verdict == Verdict.INCONCLUSIVE for c in first):
        return _failed(single), _failed(first)
    more = draw()
    extended = {
        name: (base.joined(more[name][0]), head.joined(more[name][1]))
        for name, (base, head) in pairs.items()
    }
    second = decide(*_measured(extended, seed), ALPHA_OF_TWO_LOOKS)
    return _failed(single), _failed(first) | _failed(second)


def _measured(
    pairs: Mapping[CellName, _Sides], seed: int
) -> tuple[dict[CellName, Measured], dict[CellName, tuple[int, int]]]:
    """What `decide` is told: measurements, and how many concepts and fits are behind them."""
    measured, sizes = {}, {}
    for name, sides in pairs.items():
        measured[name] = measure(*sides, seed, declared=True)
        fits, concepts = sides[0].reached.shape
        sizes[name] = concepts, fits
    return measured, sizes


def _failed(cells: list[CellVerdict]) -> set[CellName]:
    return {(c.dataset, c.method) for c in cells if c.verdict == Verdict.FAIL}


def rates_markdown(rates: Rates) -> str:
    """The rates as a page shows them.

    Args:
        rates: as counted.
    """
    total = BROKEN_RUNS * rates.cells
    rows = [
        ("false alarms, a run that looks once", _share(rates.false_alarms, rates.runs)),
        ("false alarms, one that may look twice", _share(rates.false_alarms_of_two, rates.runs)),
    ]
    for name in rates.caught:
        label = f"a 10 % loss in {name[0]}/{name[1]}"
        rows.append((f"{label} seen, looking once", _share(rates.caught[name], rates.runs)))
        rows.append((f"{label} seen, or twice", _share(rates.caught_of_two[name], rates.runs)))
    rows += [(f"{fault} caught", _share(n, total)) for fault, n in rates.broken.items()]
    return table(("what", "runs"), rows) + "\n"


def _share(count: int, of: int) -> str:
    return f"{count:,} of {of:,} ({number(100 * count / of, 1)} %)"
