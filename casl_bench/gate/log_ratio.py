"""Base and head of one method on the same images → log ratios with bounds and p-values.

Concepts are a fixed list: the gate asks about these, so they are not resampled. What else could
have come out otherwise depends on the fit. One that draws nothing always gives the same edits; then
images vary, and one draw of them weighs both sides and all concepts. One that draws random numbers
gives other edits with every seed, and what it varies by is mostly that; then the paired fits are
the unit, with Student's interval of their means over concepts. An image bootstrap of a single fit
of such a method would take the luck of the fit for the change: 29 % false alarms where fits vary by
5 %.

No method declares which kind its fit is. Where a run has several fits their scores say so: all
alike is a fit that draws nothing. Where it has one, it is taken for such a fit unless the user
names the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from casl_bench.analysis.analyse import DatasetScores, analyse_cells, group_cells
from casl_bench.analysis.comparison import ConceptScores, ScoreMatrix, fit_spread
from casl_bench.analysis.controls import check_bounds
from casl_bench.analysis.uncertainty import Design, Noise, noise_here
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.gate.verdict import ALPHA, MIN_FITS
from casl_bench.metrics.bootstrap import RESAMPLES, resampling_weights
from casl_bench.metrics.epr_plus import gain_column, signed_exp, signed_log
from casl_bench.results.record import LevelResult, RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import Array, ScoreTable
from casl_bench.results.stored_cells import read_cells

# The scale on which the gate compares EPR+: a log ratio wherever there is one, and no holes.


UNIT = 0.1
"""EPR+ from which on the scale is logarithmic: a tenth of what a random direction has."""


def to_scale(precision: Array) -> Array:
    """sign(x) log(1 + |x| / UNIT) of x = EPR+: `signed_log` of EPR+ in tenths of random.

    Differences are log ratios, shortened by x / (x + UNIT): a loss of 10 % counts as 9.6 % at
    EPR+ 1 and as 9.98 % at 20.

    Args:
        precision: EPR+ of either sign, 0 where the effect was not reached.
    Source: ours.
    """
    scaled: Array = signed_log(precision / UNIT)
    return scaled


def from_scale(value: Array) -> Array:
    """EPR+ at a place of the scale: the inverse of `to_scale`."""
    precision: Array = signed_exp(value) * UNIT
    return precision


# One side of a comparison: the records of a run folder, found by cell.


CellName = tuple[str, str]
"""(data set, method): what gets a verdict."""

Fits = Mapping[int, RunRecord]
"""Fit seed → record."""

RANDOM = "random_direction"
"""The control whose draws EPR+ is divided by."""


@dataclass
class RunSide:
    """A run folder.

    Attributes:
        where: the folder.
        store: of its records.
        edits: cell → concept → its fits, entrants only.
        draws: (data set, concept) → records of the random draws, in order.
        controls: all other edits, by their cell's place.
        records: every one.
        datasets: data set → its scores.
    """

    where: Path
    store: RecordStore
    edits: dict[CellName, dict[str, dict[int, RunRecord]]] = field(default_factory=dict)
    draws: dict[tuple[str, str], list[RunRecord]] = field(default_factory=dict)
    controls: dict[CellKey, RunRecord] = field(default_factory=dict)
    records: list[RunRecord] = field(default_factory=list)
    datasets: dict[str, DatasetScores] = field(default_factory=dict)

    def scores(self, record: RunRecord) -> ScoreTable:
        """Per-image scores of a finished edit.

        Raises:
            InvalidBenchmarkError: if it has none.
        """
        table = self.store.scores(record)
        if table is None:
            place = str(self.store.folder(CellKey.of(record)))
            raise InvalidBenchmarkError("a finished edit has no scores", where=place)
        return table

    def concept_scores(self, records: Sequence[RunRecord]) -> ConceptScores:
        """Fits of one method on one concept, by number, over what random directions do.

        Raises:
            InvalidBenchmarkError: if scores or random directions are not there.
        """
        some = records[0]
        scores, concept = self.datasets[some.dataset], some.concept or ""
        cells = {str(r.fit_seed): scores.by_place[CellKey.of(r)] for r in records}
        found = scores.concept_scores(concept, cells)
        if not found.null_image_ids:
            raise InvalidBenchmarkError(
                f"no random direction is there to compare {concept} with", where=str(self.where)
            )
        return found


def read_side(folder: Path) -> RunSide:
    """Read a run folder, refusing one that cannot be believed.

    Raises:
        UsageError: if it holds no record.
        InvalidBenchmarkError: on a corrupt record, or a control out of its bounds.
    """
    cells = read_cells(folder)
    side = RunSide(folder, RecordStore(folder))
    side.datasets = {d.name: d for d in group_cells(cells)}
    for record in analyse_cells(cells):
        side.records.append(record)
        if record.kind != "edit":
            continue
        method, concept = record.method or "", record.concept or ""
        if method == RANDOM and record.beside is None:
            side.draws.setdefault((record.dataset, concept), []).append(record)
        elif record.control:
            side.controls[CellKey.of(record)] = record
        else:
            cell = side.edits.setdefault((record.dataset, method), {})
            cell.setdefault(concept, {})[record.fit_seed] = record
    if not side.records:
        raise UsageError("no records", where=str(folder), mend="give the folder of a finished run")
    for draws in side.draws.values():
        draws.sort(key=lambda r: r.fit_seed)
    check_bounds(side.records, folder)
    return side


def is_run(folder: Path) -> bool:
    """Whether a folder holds any cell."""
    return any((folder / "cells").glob("*/*/*/record.json"))


# All fits of one method on one data set's concepts, as a function of how images are weighted.


@dataclass(frozen=True)
class MethodBoard:
    """Scores of F fits on C concepts.

    Attributes:
        board: per-image scores; its methods are the fits, by number.
        reached: [F, C] bool, whether the effect was reached the right way.
        strengths: [F, C] at which it was, NaN elsewhere.
    """

    board: ScoreMatrix
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
            ScoreMatrix(concepts),
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
        scores.append(side.concept_scores(records))
        levels.append([headline(record) for record in records])
    reached = np.array([[x.status == "reached" for x in own] for own in levels]).T
    strengths = np.array(
        [[np.nan if x.strength is None else x.strength for x in own] for own in levels]
    ).T
    return MethodBoard(ScoreMatrix(scores), reached, np.where(reached, strengths, np.nan))


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


Quantity = Literal["precision", "potency"]
Mask = NDArray[np.bool_]
ALIKE = 1e-9
"""Differences below this are the rounding of sums."""


@dataclass(frozen=True)
class LogRatio:
    """Of head over base.

    Attributes:
        quantity: which.
        value: mean over concepts and fits.
        low: one-sided bound from below at 1 - `ALPHA`; None, with the next three, where unknown.
        high: one-sided bound from above.
        worse: p-value of there being no loss.
        better: p-value of there being no gain.
        varies_by: what the bounds are made of.
        n: images or fits.
        reason: why there are none.
    """

    quantity: Quantity
    value: float
    low: float | None
    high: float | None
    worse: float | None
    better: float | None
    varies_by: Literal["images", "fits", "nothing"]
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class Measured:
    """What two sides of one method are.

    Attributes:
        precision: None where a side has no EPR+ at all.
        potency: None where no concept reached the effect on both sides.
        base: EPR+ back from the mean on the gate's scale.
        head: likewise.
        lost: concepts that every fit of the base reached and no fit of the head.
        stochastic: whether fits draw random numbers.
        undefined: "base", "head" or both, of a side without a number; None where both have one.
        reached: whether either side reached the effect anywhere: else nothing was measured.
    """

    precision: LogRatio | None
    potency: LogRatio | None
    base: float | None
    head: float | None
    lost: tuple[str, ...]
    stochastic: bool
    undefined: Literal["base", "head", "both"] | None = None
    reached: bool = True


def measure(base: MethodBoard, head: MethodBoard, seed: int, declared: bool = False) -> Measured:
    """Compare two sides.

    Args:
        base: F fits on C concepts and I images.
        head: the same fits, concepts and images of other code.
        seed: of the resamples of images.
        declared: whether the user says that the method's fit draws random numbers.
    """
    was, now = base.whole_precision, head.whole_precision
    stochastic = declared or not (_alike(was) and _alike(now))
    bare = [not np.isfinite(scores).all() for scores in (was, now)]
    if any(bare):
        undefined: Literal["base", "head", "both"]
        undefined = "both" if all(bare) else "base" if bare[0] else "head"
        return Measured(None, None, base.mean(), head.mean(), (), stochastic, undefined)
    estimate = _by_fits if stochastic else _by_images
    both: Mask = np.asarray(np.isfinite(base.whole_potency + head.whole_potency).all(0))
    return Measured(
        precision=estimate("precision", base, head, seed, np.full(was.shape[1], True)),
        potency=estimate("potency", base, head, seed, both) if both.any() else None,
        base=base.mean(),
        head=head.mean(),
        lost=_lost(base, head, stochastic),
        stochastic=stochastic,
        reached=bool(base.reached.any() or head.reached.any()),
    )


def _by_fits(
    quantity: Quantity, base: MethodBoard, head: MethodBoard, seed: int, kept: Mask
) -> LogRatio:
    """Student's t over paired fits. Source: Student 1908."""
    del seed  # nothing is drawn
    differences = (_whole(quantity, head) - _whole(quantity, base))[:, kept]
    value, n = float(differences.mean()), len(differences)
    if n < MIN_FITS:
        reason = f"{n} paired fits of a method whose fits differ, {MIN_FITS} are needed"
        return LogRatio(quantity, value, None, None, None, None, "fits", n, reason)
    sd = fit_spread(differences).sd or 0.0
    noise = Noise(((sd / math.sqrt(n), n - 1),)) if sd > ALIKE else Noise(reason="nothing varies")
    return _ratio(quantity, value, noise, "fits", n)


def _by_images(
    quantity: Quantity, base: MethodBoard, head: MethodBoard, seed: int, kept: Mask
) -> LogRatio:
    """Student's interval with the variance of paired resamples of the images. See `noise_here`."""
    weights = resampling_weights(base.images, RESAMPLES, seed)
    of_base, of_head = _of(quantity, base), _of(quantity, head)
    scores = (_whole(quantity, head) - _whole(quantity, base))[0, kept]
    with np.errstate(invalid="ignore"):  # undefined on both sides of a resample
        draws = (of_head(weights) - of_base(weights))[:, 0, kept]
    dataset = base.board.concepts[0].key[0]
    design = Design((dataset,) * base.images, (dataset,) * len(scores))
    noise = noise_here(scores, draws, design)
    return _ratio(quantity, float(scores.mean()), noise, "images", base.images)


def _ratio(
    quantity: Quantity, value: float, noise: Noise, by: Literal["images", "fits"], n: int
) -> LogRatio:
    bounds, p = noise.interval(value, 1 - 2 * ALPHA), noise.p_value(value)
    if bounds is None or p is None:
        if noise.reason != "nothing varies":
            return LogRatio(quantity, value, None, None, None, None, by, n, noise.reason)
        worse, better = float(value >= -ALIKE), float(value <= ALIKE)
        return LogRatio(quantity, value, value, value, worse, better, "nothing", n)
    worse = p / 2 if value < 0 else 1 - p / 2
    return LogRatio(quantity, value, *bounds, worse, 1 - worse, by, n)


def _whole(quantity: Quantity, side: MethodBoard) -> Array:
    return side.whole_precision if quantity == "precision" else side.whole_potency


def _of(quantity: Quantity, side: MethodBoard) -> Callable[[Array], Array]:
    return side.precision if quantity == "precision" else side.potency


def _alike(scores: Array) -> bool:
    """Whether all fits [F, C] have the same scores."""
    return bool(np.allclose(scores, scores[:1], rtol=0, atol=ALIKE, equal_nan=True))


def _lost(base: MethodBoard, head: MethodBoard, stochastic: bool) -> tuple[str, ...]:
    """Concepts lost in every fit; of fits that differ, few may all have missed by chance."""
    if stochastic and len(base.reached) < MIN_FITS:
        return ()
    return tuple(
        concept.key[1]
        for c, concept in enumerate(base.board.concepts)
        if base.reached[:, c].all() and not head.reached[:, c].any()
    )
