"""The statistical tier: base and head → a verdict for every (data set, method) of the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from casl_bench.analysis.significance import holm
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import hash_json
from casl_bench.gate.log_ratio import Calibration, Measured, measure
from casl_bench.gate.run_side import CellName, Fits, FitScoreMatrix, RunSide, matched_fits
from casl_bench.gate.verdict import (
    ALPHA,
    GAIN,
    LOSS,
    STRENGTH_ALPHA,
    STRENGTH_LOSS,
    TOLERATED,
    CellVerdict,
    Quantity,
    Verdict,
    why_not_comparable,
)
from casl_bench.results.record import RunRecord


@dataclass(frozen=True)
class Scope:
    """What is gated; None is all of the base.

    `stochastic` are methods known to use random numbers in their fit; those whose fits differ are
    recognised without it.
    """

    datasets: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    concepts: frozenset[str] | None = None
    stochastic: frozenset[str] = field(default_factory=frozenset)

    def holds(self, record: RunRecord) -> bool:
        """Whether a record is within it."""
        wanted = (self.datasets, self.methods, self.concepts)
        own = (record.dataset, record.method, record.concept)
        return all(names is None or n in names for names, n in zip(wanted, own, strict=True))


def gate(
    base: RunSide,
    head: RunSide,
    scope: Scope,
    calibration: Calibration | None = None,
    alpha: float = ALPHA,
) -> list[CellVerdict]:
    """Verdicts in the order of the base's cells, then what only the head has.

    With a calibration of the base's noise, a cell in which no loss could be seen is not gated.

    Raises:
        InvalidBenchmarkError: if the benchmark itself changed between the two.
    """
    check_null_unchanged(base, head, scope.datasets)
    settled: dict[CellName, CellVerdict] = {}
    measured: dict[CellName, Measured] = {}
    for name, cells in base.edits.items():
        wanted = _finished(cells, scope)
        if not wanted:
            continue
        try:
            fits = _common_fits(wanted, head.edits.get(name, {}))
            if calibration and (reason := calibration.why_underpowered(name, len(fits))):
                raise _Settled(Verdict.INCONCLUSIVE, f"not gated: {reason}")
            others = {concept: head.edits[name][concept] for concept in wanted}
            was = FitScoreMatrix.read(base, wanted, fits)
            now = FitScoreMatrix.read(head, others, fits)
            if was.matrix.images != now.matrix.images:
                raise _Settled(Verdict.NOT_COMPARABLE, "the test images are not the same")
        except _Settled as why:
            verdict, reason = why.args
            settled[name] = CellVerdict(
                dataset=name[0], method=name[1], verdict=verdict, reason=reason
            )
            continue
        # The same two sets of records always get the same verdict.
        ids = [side[c][k].record_id for side in (wanted, others) for c in side for k in fits]
        seed = int(hash_json(ids)[:15], 16)
        measured[name] = measure(was, now, seed, name[1] in scope.stochastic)
    settled |= {(c.dataset, c.method): c for c in decide(measured, alpha)}
    known = [settled[name] for name in base.edits if name in settled]
    return known + [
        new_cell(head, name, "not in the base", scope)
        for name, cells in head.edits.items()
        if name not in base.edits and _finished(cells, scope)
    ]


class _Settled(Exception):
    """A verdict that needs no measurement, and its reason."""


def new_cell(head: RunSide, name: CellName, reason: str, scope: Scope) -> CellVerdict:
    """A cell that the base lacks, with its mean EPR+ over finished concepts within the scope."""
    cells, common = matched_fits(_finished(head.edits[name], scope))
    epr_plus = FitScoreMatrix.read(head, cells, common).mean_epr_plus() if common else None
    return CellVerdict(
        dataset=name[0], method=name[1], verdict=Verdict.NEW, reason=reason, head=epr_plus
    )


def _finished(cells: Mapping[str, Fits], scope: Scope) -> dict[str, Fits]:
    """Concepts within the scope → their finished fits; those without any are left out."""
    kept: dict[str, Fits] = {}
    for concept, fits in cells.items():
        done = {k: r for k, r in sorted(fits.items()) if r.status == "done" and scope.holds(r)}
        if done:
            kept[concept] = done
    return kept


def _common_fits(base: Mapping[str, Fits], head: Mapping[str, Fits]) -> list[int]:
    """Seeds of the fits that both sides have of all concepts of the base.

    Raises:
        _Settled: where cells are missing, failed, or not comparable.
    """
    seeds = {seed for fits in head.values() for seed in fits} | {0}
    missing, failed = [], []
    for concept, fits in base.items():
        own = head.get(concept, {})
        missing += [_place(concept, k) for k in fits if k in seeds and k not in own]
        failed += [_place(concept, k) for k in fits if k in own and own[k].status != "done"]
    if failed:
        raise _Settled(Verdict.FAIL, f"no longer runs on {', '.join(failed)}")
    if missing:
        raise _Settled(Verdict.FAIL, f"missing: {', '.join(missing)}")
    common = sorted(set.intersection(*(set(fits) & set(head[c]) for c, fits in base.items())))
    if not common:
        raise _Settled(
            Verdict.NOT_COMPARABLE, "no fit seed is common to all concepts of both sides"
        )
    for concept, fits in base.items():
        for seed in common:
            was, now = fits[seed], head[concept][seed]
            reason = why_not_comparable(was, now)
            if reason is None and not (was.levels and now.levels):
                reason = "not matched in its effect: made by an older version"
            if reason is not None:
                raise _Settled(Verdict.NOT_COMPARABLE, reason)
    return common


def _place(concept: str, fit: int) -> str:
    return f"{concept} #{fit}" if fit else concept


# Whether the benchmark itself changed: then no number says anything about a method.


def check_null_unchanged(
    base: RunSide, head: RunSide, datasets: frozenset[str] | None = None
) -> None:
    """Refuse a head whose random directions, the unit of EPR+, are others than the base's.

    Raises:
        InvalidBenchmarkError: if, on a data set, the mean log ratio of the random directions' EPR
            is off 0 by more than `LOSS`.
    """
    changes: dict[str, list[float]] = {}
    for key, records in base.random.items():
        if datasets is not None and key[0] not in datasets:
            continue
        now = {r.fit_seed: r for r in head.random.get(key, [])}
        for was in records:
            ratio = _null_log_ratio(was, now.get(was.fit_seed))
            if ratio is not None:
                changes.setdefault(key[0], []).append(ratio)
    for dataset, ratios in changes.items():
        mean = float(np.mean(ratios))
        if abs(mean) > -LOSS:
            raise InvalidBenchmarkError(
                f"the random directions of {dataset} have {math.exp(mean):.2f} times the base's "
                "EPR: the unit of EPR+ changed, not the methods",
                where=str(head.where),
                hint="find what changed them, or raise the version of 'random_direction'",
            )


def _null_log_ratio(base: RunRecord, head: RunRecord | None) -> float | None:
    if head is None or why_not_comparable(base, head) is not None:
        return None
    was, now = base.measurements.get("epr_std"), head.measurements.get("epr_std")
    if was is None or now is None or not was.value or not now.value:
        return None
    return math.log(now.value / was.value)


# Log ratios of all cells of a gate run → verdicts, adjusted for how many there are.


def decide(cells: Mapping[CellName, Measured], alpha: float = ALPHA) -> list[CellVerdict]:
    """FAIL, IMPROVED, PASS or INCONCLUSIVE, in this order, for each cell that was measured.

    FAIL: significantly less precise (Holm's p over all cells at most `alpha`) and by more than
    `LOSS`; or less effect per unit of strength likewise; or the effect lost on a concept. IMPROVED:
    significantly more precise, by more than `GAIN`. PASS: the lower bound excludes `TOLERATED`.

    Source: Holm 1979; non-inferiority with a margin.
    """
    worse = _adjusted(cells, "precision", "p")
    weaker = _adjusted(cells, "effect_per_unit_strength", "p")
    better = _adjusted(cells, "precision", "p_better")
    found = []
    for name, measured in cells.items():
        adjusted = {"precision": worse.get(name), "effect_per_unit_strength": weaker.get(name)}
        verdict, reason = _verdict(
            measured,
            is_worse=_at_most(worse.get(name), alpha),
            is_weaker=_at_most(weaker.get(name), STRENGTH_ALPHA),
            is_better=_at_most(better.get(name), alpha),
        )
        found.append(
            CellVerdict(
                dataset=name[0],
                method=name[1],
                verdict=verdict,
                reason=reason,
                base=measured.base,
                head=measured.head,
                effects=tuple(
                    e.model_copy(update={"p_holm": adjusted[e.quantity]}) for e in measured.effects
                ),
                concepts=measured.concepts,
                fits=measured.fits,
            )
        )
    return found


def _adjusted(
    cells: Mapping[CellName, Measured], quantity: Quantity, p: Literal["p", "p_better"]
) -> Mapping[CellName, float | None]:
    tested = {
        name: effect
        for name, measured in cells.items()
        if (effect := getattr(measured, quantity)) is not None
    }
    return dict(zip(tested, holm([getattr(e, p) for e in tested.values()]), strict=True))


def _at_most(p: float | None, alpha: float) -> bool:
    return p is not None and p <= alpha


def _verdict(
    measured: Measured, *, is_worse: bool, is_weaker: bool, is_better: bool
) -> tuple[Verdict, str]:
    precision, strength = measured.precision, measured.effect_per_unit_strength
    if measured.undefined == "head":
        return Verdict.FAIL, "EPR+ is no longer defined"
    if precision is None:
        return Verdict.NOT_COMPARABLE, f"EPR+ is undefined in {measured.undefined or 'both'}"
    if not measured.reached:
        return Verdict.NOT_COMPARABLE, "neither side reaches the effect on any concept"
    if measured.lost:
        return Verdict.FAIL, f"the effect is no longer reached on {', '.join(measured.lost)}"
    if is_worse and precision.log_ratio < LOSS:
        return Verdict.FAIL, f"precision fell by {_percent(precision.log_ratio)}"
    if strength is not None and is_weaker and strength.log_ratio < STRENGTH_LOSS:
        return Verdict.FAIL, f"the same strength has {_percent(strength.log_ratio)} less effect"
    if is_better and precision.log_ratio > GAIN:
        rise = _percent(precision.log_ratio)
        return Verdict.IMPROVED, f"precision rose by {rise}: a new baseline?"
    if precision.low is None:
        return Verdict.INCONCLUSIVE, precision.reason or "no interval"
    if precision.low > TOLERATED:
        same = all(e.log_ratio == 0 and e.varies_by == "nothing" for e in measured.effects)
        return Verdict.PASS, "the same" if same else "no loss of 10 % or more"
    return Verdict.INCONCLUSIVE, "neither a loss nor its absence is shown: run more fits"


def _percent(log_ratio: float) -> str:
    return f"{100 * abs(math.expm1(log_ratio)):.1f} %"
