"""Does a comparison follow from the cells beside it?

A record's id says that it was not changed carelessly; whoever changes it on purpose makes a new id.
Means, differences and ranks of a comparison can be computed again from its cells, so that one
number cannot be changed alone. Its intervals and p-values cannot: they are of per-image scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from casl_bench.comparison.paired import Difference, holm
from casl_bench.comparison.ranks import rank_intervals
from casl_bench.comparison.signed_log import signed_exp, signed_log
from casl_bench.core.errors import InputError
from casl_bench.records.comparison import ALL, Comparison, Pair
from casl_bench.records.record import RunRecord

TOLERANCE = 1e-6
"""Relative, for sums in another order."""

_EPR_PLUS = "epr_plus"


def inconsistencies(records: Sequence[RunRecord]) -> list[str]:
    """What the comparisons of a run say and its cells do not, as sentences.

    Args:
        records: of one world, suite and seed.
    """
    cells = {
        (f"{r.dataset}/{r.concept}", r.method or ""): r
        for r in records
        if r.kind == "edit" and not r.control and r.fit_seed == 0 and r.status == "done"
    }
    faults = []
    for record in records:
        if record.comparison is not None:
            where = "over all data sets" if record.dataset == ALL else f"on {record.dataset}"
            found = _of_comparison(record.comparison, cells)
            faults += [f"the comparison {where}: {fault}" for fault in found]
    return faults


def _of_comparison(comparison: Comparison, cells: Mapping[tuple[str, str], RunRecord]) -> list[str]:
    names = [standing.method for standing in comparison.standings]
    means: dict[str, float] = {}
    for name in names:
        own = [cells.get((concept, name)) for concept in comparison.concepts]
        scores = [_score(r, comparison.level) for r in own if r is not None]
        known = [s for s in scores if s is not None]
        if not known or len(known) < len(comparison.concepts):
            return [f"'{name}' has cells without the level {comparison.level}"]
        means[name] = sum(known) / len(known)
    faults = [
        f"EPR+ of '{s.method}' is {s.epr_plus.value}, of its cells {signed_exp(means[s.method])}"
        for s in comparison.standings
        for value in (s.epr_plus.value, s.epr_plus_here.value)
        if value is None or not _same(signed_log(value), means[s.method])
    ]
    for pair in comparison.pairs:
        gap = means.get(pair.a, math.nan) - means.get(pair.b, math.nan)
        if pair.difference.value is None or not _same(pair.difference.value, gap):
            faults.append(f"the difference of '{pair.a}' and '{pair.b}' is not that of their cells")
    return faults or _of_ranks(comparison, means)


def _of_ranks(comparison: Comparison, means: Mapping[str, float]) -> list[str]:
    adjusted = holm([pair.p for pair in comparison.pairs])
    for pair, p in zip(comparison.pairs, adjusted, strict=True):
        if (p is None) != (pair.p_holm is None) or not _same(p or 0.0, pair.p_holm or 0.0):
            return [f"p of '{pair.a}' and '{pair.b}' is not Holm's"]
    try:
        ranks = rank_intervals(means, [_difference(pair) for pair in comparison.pairs])
    except InputError as error:
        return [str(error)]
    wanted = {r.method: (r.low, r.high) for r in ranks}
    return [
        f"'{s.method}' has ranks {s.rank_low} to {s.rank_high}, its pairs leave open "
        f"{wanted[s.method][0]} to {wanted[s.method][1]}"
        for s in comparison.standings
        if (s.rank_low, s.rank_high) != wanted[s.method]
    ]


def _score(record: RunRecord, name: str) -> float | None:
    """A cell's score as comparisons have it: 0 where the effect is not reached."""
    level = next((x for x in record.levels if x.name == name), None)
    if level is None:
        return None
    if level.status == "not_reached":
        return 0.0
    measured = level.measurements.get(_EPR_PLUS)
    return None if measured is None or measured.value is None else signed_log(measured.value)


def _difference(pair: Pair) -> Difference:
    found = pair.difference
    value = found.value or 0.0
    return Difference(
        pair.a, pair.b, value, found.low, found.high, found.level, pair.p, pair.p_holm, 0, found.n
    )


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
