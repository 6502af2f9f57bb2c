"""The statistical tier: base and head → a verdict for every (data set, method) of the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from casl_bench.analysis.significance import holm
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import hash_json
from casl_bench.gate.log_ratio import (
    ALIKE,
    CellName,
    Fits,
    LogRatio,
    Measured,
    MethodBoard,
    RunSide,
    from_scale,
    measure,
    method_board,
    to_scale,
)
from casl_bench.gate.verdict import (
    ALPHA,
    GAIN,
    LOSS,
    MIN_FITS,
    POTENCY_ALPHA,
    POTENCY_LOSS,
    TOLERATED,
    CellVerdict,
    Effect,
    Verdict,
    why_not_comparable,
)
from casl_bench.metrics.bootstrap import resampling_weights
from casl_bench.results.record import RunRecord
from casl_bench.results.score_table import Array

# How much a cell varies where nothing changed (A/A), and whether a loss would show in that.


MIN_POWER = 0.5
"""A cell in which a 10 % loss is seen less often than this is not gated."""


@dataclass(frozen=True)
class CellNoise:
    """Of one (data set, method).

    Attributes:
        sd: of the mean log ratio of one pair of fits, nothing changed.
        false_alarms: share of A/A runs that would be red, of this cell by itself.
        power: share of runs with a 10 % loss that would be.
        fits: stored ones that runs were drawn from.
        runs: how many were drawn.
    """

    sd: float
    false_alarms: float
    power: float
    fits: int
    runs: int


@dataclass(frozen=True)
class Calibration:
    """Noise of all cells of a run.

    Attributes:
        cells: cell → its noise; those whose fits tell it.
        fits: paired fits of a run that was imagined.
    """

    cells: Mapping[CellName, CellNoise]
    fits: int

    def why_blind(self, name: CellName, fits: int) -> str | None:
        """Why a cell cannot be gated; None if it can.

        Args:
            name: of the cell.
            fits: paired ones that the verdict would rest on.
        """
        noise = self.cells.get(name)
        if noise is None:
            return "A/A: the noise of a single fit is not known"
        if noise.sd > ALIKE and fits < MIN_FITS:
            return f"A/A: fits differ, {MIN_FITS} paired ones are needed and {fits} are there"
        if noise.power < MIN_POWER:
            return f"A/A: a 10 % loss would be seen in {100 * noise.power:.0f} % of runs"
        return None


def calibrate(side: RunSide, runs: int, fits: int = MIN_FITS) -> Calibration:
    """Draw A/A runs from every cell of a run.

    Args:
        side: the run; a method needs two fits or more.
        runs: A/A runs to draw, and as many with a loss.
        fits: paired fits of each.
    """
    cells = {}
    for name, concepts in side.edits.items():
        done = {
            c: own for c, records in concepts.items()
            if (own := {k: r for k, r in records.items() if r.status == "done" and r.levels})
        }  # fmt: skip
        common = sorted(set.intersection(*map(set, done.values()))) if done else []
        if len(common) < 2:
            continue
        board = method_board(side, done, common)
        seed = int(hash_json([side.records[0].record_id, *name])[:15], 16)
        cells[name] = cell_noise(board, seed, runs, fits)
    return Calibration(cells, fits)


def cell_noise(board: MethodBoard, seed: int, runs: int, fits: int = MIN_FITS) -> CellNoise:
    """Noise of one method, from its stored fits.

    Args:
        board: F >= 2 fits.
        seed: of what is drawn.
        runs: how many A/A runs.
        fits: paired fits of each.
    """
    stored = StoredFits.of(board, seed, runs)
    rng = np.random.default_rng(seed)
    same = stored.log_ratios(rng, fits).mean(2)
    lossy = stored.log_ratios(rng, fits, loss=TOLERATED).mean(2)
    return CellNoise(
        sd=float(same.std(ddof=1)),
        false_alarms=float(red(same).mean()),
        power=float(red(lossy).mean()),
        fits=stored.scores.shape[1],
        runs=runs,
    )


@dataclass(frozen=True)
class StoredFits:
    """Scores to draw runs from.

    Attributes:
        scores: [R, F, C] on the gate's scale, of R draws of the images.
    """

    scores: Array

    @classmethod
    def of(cls, board: MethodBoard, seed: int, runs: int) -> StoredFits:
        """F fits under `runs` resamples of the images; resamples without a number are drawn anew.

        Args:
            board: the fits.
            seed: of the images.
            runs: R.
        """
        scores = board.precision(resampling_weights(board.images, 2 * runs, seed))
        return cls(scores[np.isfinite(scores).all((1, 2))][:runs])

    def log_ratios(self, rng: np.random.Generator, fits: int, loss: float = 0.0) -> Array:
        """[R, fits, C] of a head over a base that differ by chance, and by a planted change.

        Args:
            rng: of the fits.
            fits: paired ones a run.
            loss: log ratio of the change, e.g. log 0.9.
        """
        runs, stored, concepts = self.scores.shape
        mean = self.scores.mean(1, keepdims=True)
        stretched = mean + math.sqrt(stored / (stored - 1)) * (self.scores - mean)
        place = np.arange(runs)[:, None, None], np.arange(concepts)[None, None]
        base, head = (
            stretched[place[0], rng.integers(stored, size=(runs, fits, concepts)), place[1]]
            for _ in range(2)
        )
        ratios: Array = to_scale(from_scale(head) * math.exp(loss)) - base
        return ratios


def red(thetas: Array) -> NDArray[np.bool_]:
    """[R] whether a cell by itself would be red, from its fits' log ratios [R, K]."""
    found: NDArray[np.bool_] = (p_worse(thetas) <= ALPHA) & (thetas.mean(1) < LOSS)
    return found


def p_worse(thetas: Array) -> Array:
    """[R] one-sided p-values of Student's t over K fits, [R, K]; as `measure` has them."""
    mean, k = thetas.mean(1), thetas.shape[1]
    error = thetas.std(1, ddof=1) / math.sqrt(k)
    with np.errstate(divide="ignore", invalid="ignore"):
        p: Array = stdtr(k - 1, mean / error)
    return np.where(error <= ALIKE, (mean >= -ALIKE).astype(float), p)


# Log ratios of all cells of a gate run → verdicts, adjusted for how many there are.


_Test = tuple[CellName, str]


def decide(
    cells: Mapping[CellName, Measured],
    sizes: Mapping[CellName, tuple[int, int]],
    alpha: float = ALPHA,
) -> list[CellVerdict]:
    """FAIL, IMPROVED, PASS or INCONCLUSIVE, in this order, for each cell that could be measured.

    FAIL: certainly less precise (Holm's p over all cells at most `alpha`) and by more than `LOSS`;
    or less potent likewise; or the effect lost on a concept. IMPROVED: certainly more precise, by
    more than `GAIN`. PASS: the lower bound excludes a loss of `TOLERATED`.

    Args:
        cells: what was measured.
        sizes: concepts and fits of each.
        alpha: level at which a difference of precision is certain.
    Source: Holm 1979; non-inferiority with a margin.
    """
    ratios: dict[_Test, LogRatio] = {
        (name, ratio.quantity): ratio
        for name, measured in cells.items()
        for ratio in (measured.precision, measured.potency)
        if ratio is not None
    }
    precisions = {test: r for test, r in ratios.items() if r.quantity == "precision"}
    potencies = {test: r for test, r in ratios.items() if r.quantity == "potency"}
    worse = _adjusted({test: r.worse for test, r in precisions.items()})
    worse |= _adjusted({test: r.worse for test, r in potencies.items()})
    better = _adjusted({test: r.better for test, r in precisions.items()})
    found = []
    for name, measured in cells.items():
        verdict, reason = _verdict(name, measured, worse, better, alpha)
        concepts, fits = sizes[name]
        found.append(
            CellVerdict(
                dataset=name[0],
                method=name[1],
                verdict=verdict,
                reason=reason,
                base=measured.base,
                head=measured.head,
                effects=tuple(
                    _effect(r, worse[test]) for test, r in ratios.items() if test[0] == name
                ),
                concepts=concepts,
                fits=fits,
            )
        )
    return found


def _adjusted(p_values: Mapping[_Test, float | None]) -> dict[_Test, float | None]:
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _verdict(
    name: CellName,
    measured: Measured,
    worse: Mapping[_Test, float | None],
    better: Mapping[_Test, float | None],
    alpha: float,
) -> tuple[Verdict, str]:
    precision, potency = measured.precision, measured.potency
    if measured.undefined == "head":
        return Verdict.FAIL, "EPR+ is no longer defined"
    if precision is None:
        return Verdict.NOT_COMPARABLE, f"EPR+ is undefined in {measured.undefined or 'both'}"
    if not measured.reached:
        return Verdict.NOT_COMPARABLE, "neither side reaches the effect on any concept"
    if measured.lost:
        return Verdict.FAIL, f"the effect is no longer reached on {', '.join(measured.lost)}"
    if _certain(worse[name, "precision"], alpha) and precision.value < LOSS:
        return Verdict.FAIL, f"precision fell by {_percent(precision.value)}"
    by_chance = worse.get((name, "potency"))
    if potency and _certain(by_chance, POTENCY_ALPHA) and potency.value < POTENCY_LOSS:
        return Verdict.FAIL, f"the same strength has {_percent(potency.value)} less effect"
    if _certain(better[name, "precision"], alpha) and precision.value > GAIN:
        return Verdict.IMPROVED, f"precision rose by {_percent(precision.value)}: a new baseline?"
    if precision.low is None:
        return Verdict.INCONCLUSIVE, precision.reason or "no interval"
    if precision.low > TOLERATED:
        same = all(r is None or (r.value == 0 and r.varies_by == "nothing")
                   for r in (precision, potency))  # fmt: skip
        return Verdict.PASS, "the same" if same else "no loss of 10 % or more"
    return Verdict.INCONCLUSIVE, "neither a loss nor its absence is shown: run more fits"


def _certain(p: float | None, alpha: float) -> bool:
    return p is not None and p <= alpha


def _percent(log_ratio: float) -> str:
    return f"{100 * abs(math.expm1(log_ratio)):.1f} %"


def _effect(ratio: LogRatio, p_holm: float | None) -> Effect:
    return Effect(
        quantity=ratio.quantity,
        log_ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        p=ratio.worse,
        p_holm=p_holm,
        varies_by=ratio.varies_by,
        n=ratio.n,
        reason=ratio.reason,
    )


# Did the benchmark itself move? Then no method's number says anything about the method.


_UNIT = "epr_std"


def check_yardstick(base: RunSide, head: RunSide, datasets: frozenset[str] | None = None) -> None:
    """Refuse a head whose random draws are others than the base's.

    Args:
        base: what was accepted.
        head: what is asked about.
        datasets: those that count; None for all.

    Raises:
        InvalidBenchmarkError: if, on a data set, the mean log ratio of the draws' EPR is off 0 by
            more than `LOSS`.
    """
    moved: dict[str, list[float]] = {}
    for key, draws in base.draws.items():
        if datasets is not None and key[0] not in datasets:
            continue
        now = {r.fit_seed: r for r in head.draws.get(key, [])}
        for was in draws:
            ratio = _log_ratio(was, now.get(was.fit_seed))
            if ratio is not None:
                moved.setdefault(key[0], []).append(ratio)
    for dataset, ratios in moved.items():
        mean = float(np.mean(ratios))
        if abs(mean) > -LOSS:
            raise InvalidBenchmarkError(
                f"the random draws of {dataset} have {math.exp(mean):.2f} times the base's EPR: "
                "the unit of EPR+ changed, not the methods",
                where=str(head.where),
                mend="find what moved them, or raise the version of 'random_direction'",
            )


def _log_ratio(base: RunRecord, head: RunRecord | None) -> float | None:
    if head is None or why_not_comparable(base, head) is not None:
        return None
    was, now = base.measurements.get(_UNIT), head.measurements.get(_UNIT)
    if was is None or now is None or not was.value or not now.value:
        return None
    return math.log(now.value / was.value)


@dataclass(frozen=True)
class Scope:
    """What is gated.

    Attributes:
        datasets: names; None for all of the base.
        methods: names; None for all of the base.
        concepts: names; None for all of the base.
        stochastic: methods whose fit draws random numbers, besides those whose fits show it.
    """

    datasets: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    concepts: frozenset[str] | None = None
    stochastic: frozenset[str] = field(default_factory=frozenset)

    def holds(self, record: RunRecord) -> bool:
        """Whether a record is within it."""
        return all(
            names is None or name in names
            for names, name in (
                (self.datasets, record.dataset),
                (self.methods, record.method),
                (self.concepts, record.concept),
            )
        )


@dataclass(frozen=True)
class _Pair:
    """The finished cells of one method that both sides have.

    Attributes:
        base: concept → fits.
        head: likewise.
        fits: seeds that every one of them has.
    """

    base: Mapping[str, Fits]
    head: Mapping[str, Fits]
    fits: tuple[int, ...]


def gate(
    base: RunSide,
    head: RunSide,
    scope: Scope,
    calibration: Calibration | None = None,
    alpha: float = ALPHA,
) -> list[CellVerdict]:
    """Verdicts in the order of the base's cells, then what only the head has.

    Args:
        base: what was accepted.
        head: what is asked about.
        scope: what is gated.
        calibration: of the base's noise; a cell in which no loss could be seen is not gated.
        alpha: see `decide`.

    Raises:
        InvalidBenchmarkError: if the benchmark itself changed between the two.
    """
    check_yardstick(base, head, scope.datasets)
    closed: list[CellVerdict] = []
    measured: dict[CellName, Measured] = {}
    sizes: dict[CellName, tuple[int, int]] = {}
    for name, cells in base.edits.items():
        wanted = _within(cells, scope)
        if not wanted:
            continue
        found = _pair(wanted, head.edits.get(name, {}))
        if isinstance(found, _Pair):
            found = _blind(name, found, calibration) or found
        if isinstance(found, _Pair):
            boards = (
                method_board(base, found.base, found.fits),
                method_board(head, found.head, found.fits),
            )
            if boards[0].board.images != boards[1].board.images:
                found = Verdict.NOT_COMPARABLE, "the test images are not the same"
            else:
                measured[name] = measure(*boards, _seed(found), name[1] in scope.stochastic)
                sizes[name] = len(found.base), len(found.fits)
                continue
        verdict, reason = found
        closed.append(CellVerdict(dataset=name[0], method=name[1], verdict=verdict, reason=reason))
    order = {name: place for place, name in enumerate(base.edits)}
    known = sorted(
        [*closed, *decide(measured, sizes, alpha)], key=lambda c: order[c.dataset, c.method]
    )
    return [*known, *_new(base, head, scope)]


def _within(cells: Mapping[str, Fits], scope: Scope) -> dict[str, Fits]:
    """Concepts of a method that are gated and that the base has finished, with those fits."""
    kept: dict[str, Fits] = {}
    for concept, fits in cells.items():
        done = {k: r for k, r in sorted(fits.items()) if r.status == "done" and scope.holds(r)}
        if done:
            kept[concept] = done
    return kept


def _pair(base: Mapping[str, Fits], head: Mapping[str, Fits]) -> _Pair | tuple[Verdict, str]:
    """The cells to compare, or why they cannot be."""
    seeds = {seed for fits in head.values() for seed in fits} | {0}
    missing, failed = [], []
    for concept, fits in base.items():
        own = head.get(concept, {})
        missing += [_named(concept, k) for k in fits if k in seeds and k not in own]
        failed += [_named(concept, k) for k in fits if k in own and own[k].status != "done"]
    if failed:
        return Verdict.FAIL, f"no longer runs on {', '.join(failed)}"
    if missing:
        return Verdict.FAIL, f"missing: {', '.join(missing)}"
    common = set.intersection(*(set(fits) & set(head[c]) for c, fits in base.items()))
    if not common:
        return Verdict.NOT_COMPARABLE, "no fit seed is common to all concepts of both"
    for concept, fits in base.items():
        for seed in sorted(common):
            reason = why_not_comparable(fits[seed], head[concept][seed])
            if reason is None and not (fits[seed].levels and head[concept][seed].levels):
                reason = "not matched in its effect: made by an older version"
            if reason is not None:
                return Verdict.NOT_COMPARABLE, reason
    return _Pair(base, {c: head[c] for c in base}, tuple(sorted(common)))


def _named(concept: str, fit: int) -> str:
    return f"{concept} #{fit}" if fit else concept


def _blind(
    name: CellName, pair: _Pair, calibration: Calibration | None
) -> tuple[Verdict, str] | None:
    """The verdict on a cell whose noise hides what the gate is for."""
    if calibration is None:
        return None
    reason = calibration.why_blind(name, len(pair.fits))
    return None if reason is None else (Verdict.INCONCLUSIVE, f"not gated: {reason}")


def _seed(pair: _Pair) -> int:
    """Of the resamples: the same two sets of records always get the same verdict."""
    ids = [r[k].record_id for side in (pair.base, pair.head) for r in side.values()
           for k in pair.fits]  # fmt: skip
    return int(hash_json(ids)[:15], 16)


def _new(base: RunSide, head: RunSide, scope: Scope) -> list[CellVerdict]:
    found = []
    for name, cells in head.edits.items():
        if name in base.edits or not _within(cells, scope):
            continue
        found.append(
            CellVerdict(
                dataset=name[0],
                method=name[1],
                verdict=Verdict.NEW,
                reason="not in the base",
                head=precision_of(head, name, scope),
            )
        )
    return found


def precision_of(side: RunSide, name: CellName, scope: Scope) -> float | None:
    """EPR+ of a method over its finished concepts; None where there is none.

    Args:
        side: the run.
        name: of the cell.
        scope: what counts.
    """
    cells = _within(side.edits[name], scope)
    matched = {c: own for c, fits in cells.items()
               if (own := {k: r for k, r in fits.items() if r.levels})}  # fmt: skip
    common = sorted(set.intersection(*map(set, matched.values()))) if matched else []
    return method_board(side, matched, common).mean() if common else None
