"""Log ratios of all cells of a gate run → verdicts, adjusted for how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from casl_bench.comparison.paired import holm
from casl_bench.gate.gate_report import CellVerdict, Effect
from casl_bench.gate.measure import LogRatio, Measured
from casl_bench.gate.run_side import CellName
from casl_bench.gate.verdict import (
    ALPHA,
    GAIN,
    LOSS,
    POTENCY_ALPHA,
    POTENCY_LOSS,
    TOLERATED,
    Verdict,
)

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
