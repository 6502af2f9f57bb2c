"""Every two methods on the same images and concepts: is one better, or is it noise?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from string import ascii_letters

import numpy as np

from casl_bench.analysis.uncertainty import ResampledScores, noise_beyond
from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.epr_plus import signed_log
from casl_bench.results.record import Comparison, Measurement, Pair, Sensitivity, Standing


def paired_differences(scores: ResampledScores) -> tuple[Pair, ...]:
    """Mean over concepts of s_ac - s_bc of all pairs, with Student's interval and Holm's p.

    Concepts always count as sampled: with them held fixed, two fits of one method that differ by
    nothing but their seed are significantly different, for each concept has its own fit. Degrees of
    freedom are the cautious ones (see `noise_beyond`), as a false win costs more than a missed one.

    Returns:
        M (M - 1) / 2 pairs, a before b in the order of the methods.
    Source: see `uncertainty`; Holm 1979.
    """
    images = sum(scores.design.images_of().values())
    found = []
    for i, j in combinations(range(len(scores.methods)), 2):
        measured = scores.measured[i] - scores.measured[j]
        # Undefined for both methods: infinities would cancel to a NaN that numpy warns of.
        with np.errstate(invalid="ignore"):
            resampled = scores.resampled[:, i] - scores.resampled[:, j]
        value = float(measured @ scores.design.weights)
        noise = noise_beyond(measured, resampled, scores.design, cautious=True)
        low, high = noise.interval(value, LEVEL) or (None, None)
        difference = Measurement(
            status="ok", value=value, low=low, high=high, level=LEVEL, n=images, unit="log ratio"
        )
        found.append((scores.methods[i], scores.methods[j], difference, noise.p_value(value)))
    adjusted = holm([p for *_, p in found])
    return tuple(
        Pair(a=a, b=b, difference=difference, p=p, p_holm=p_holm)
        for (a, b, difference, p), p_holm in zip(found, adjusted, strict=True)
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted so that all tests together err with probability alpha at most.

    max over the tests up to this one, in order of p, of (N - place) p, at most 1; in the order
    given. None is no test, counts as one that failed, and stays None.

    Raises:
        InputError: on a p-value outside [0, 1].
    Source: Holm 1979.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    if not all(0 <= p <= 1 for p, _ in known):
        raise InputError("p-values lie in [0, 1]")
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for done, (p, place) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, (len(p_values) - done) * p))
        adjusted[place] = highest
    return adjusted


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orders of the same methods; None where either has a single place.

    Source: Kendall 1945.
    """
    from scipy.stats import kendalltau  # takes a second to import

    tau = float(kendalltau(a, b).statistic) if len(a) > 1 else math.nan
    # A perfect agreement is 1 exactly, whatever its square roots round to.
    return round(tau, 15) if math.isfinite(tau) else None


# Ranks that the noise leaves open, and letters of methods that are not significantly different.

ALPHA = 0.05
"""Probability that any pair at all is falsely found to differ."""


def is_significant(pair: Pair) -> bool:
    """Whether two methods differ after Holm's correction."""
    return pair.p_holm is not None and pair.p_holm <= ALPHA


@dataclass(frozen=True)
class RankInterval:
    """One method's place.

    Attributes:
        method: its name.
        low: best rank left open, 1 first.
        high: worst rank left open.
        letters: the best method's first; two methods are significantly different just where they
            share none.
    """

    method: str
    low: int
    high: int
    letters: str


def rank_intervals(scores: Mapping[str, float], pairs: Sequence[Pair]) -> tuple[RankInterval, ...]:
    """From 1 + (methods significantly better) to M - (methods significantly worse).

    Holm's adjustment holds over all pairs together, so with probability 1 - `ALPHA` all the true
    ranks lie in their intervals together.

    Scores are means over concepts, higher is better; the best comes first, equal ones in order of
    name. Where two share a letter, that order is no result.

    Raises:
        InputError: if a pair is missing, given twice or of another method.
    Source: ranks from pairwise tests as in Mogstad, Romano, Shaikh & Wilhelm 2024; letters as in
    Piepho 2004.
    """
    order = sorted(scores, key=lambda name: (-scores[name], name))
    wanted = {frozenset(two) for two in combinations(order, 2)}
    if {frozenset((p.a, p.b)) for p in pairs} != wanted or len(pairs) != len(wanted):
        raise InputError("ranks need the difference of every two methods, once")
    better = {
        (p.a, p.b) if (p.difference.value or 0.0) > 0 else (p.b, p.a)
        for p in pairs
        if is_significant(p)
    }
    letters = _letters(order, better)
    return tuple(
        RankInterval(
            name,
            1 + sum(worse == name for _, worse in better),
            len(order) - sum(winner == name for winner, _ in better),
            letters[name],
        )
        for name in order
    )


def without(found: Comparison, methods: Collection[str]) -> Comparison | None:
    """What a comparison says of the other methods; None where there is no other.

    Ranks are those that the stored tests of the others leave open. What rests on scores (agreement
    of classifiers, sensitivity) cannot be computed again and is left out.
    """
    kept = {s.method: s for s in found.standings if s.method not in methods}
    pairs = [p for p in found.pairs if p.a in kept and p.b in kept]
    pairs = [
        p.model_copy(update={"p_holm": adjusted})
        for p, adjusted in zip(pairs, holm([p.p for p in pairs]), strict=True)
    ]
    scores = {name: signed_log(s.epr_plus.value or 0.0) for name, s in kept.items()}
    standings = tuple(
        kept[r.method].model_copy(
            update={"rank_low": r.low, "rank_high": r.high, "group": r.letters}
        )
        for r in rank_intervals(scores, pairs)
    )
    if not standings:
        return None
    gone = {s.method for s in found.standings} - kept.keys()
    return found.model_copy(
        update={
            "standings": standings,
            "pairs": tuple(pairs),
            "agreements": (),
            "sensitivity": (),
            "incomplete": tuple(sorted({*found.incomplete, *gone})),
        }
    )


SUPERVISION = ("none", "text", "labels")
"""Classes of methods by what guides their fits, the least first."""


def ranks_within(found: Comparison, classes: Mapping[str, str]) -> dict[str, tuple[Standing, ...]]:
    """Supervision class → standings of its methods among themselves, the least supervised first.

    `classes` are by method. Tests are adjusted for the pairs of a class alone.
    """
    order = sorted(
        set(classes.values()),
        key=lambda c: SUPERVISION.index(c) if c in SUPERVISION else len(SUPERVISION),
    )
    own = {c: without(found, {m for m in classes if classes[m] != c}) for c in order}
    return {c: part.standings for c, part in own.items() if part is not None}


def _letters(order: Sequence[str], better: set[tuple[str, str]]) -> dict[str, str]:
    """One letter per largest set of methods of which no two differ, until each such pair has one.

    `better` holds (better, worse) of every pair that differs significantly.
    """

    def alike(a: str, b: str) -> bool:
        return (a, b) not in better and (b, a) not in better

    sets: list[list[str]] = []
    for a, b in combinations_with_replacement(order, 2):
        if not alike(a, b) or any(a in own and b in own for own in sets):
            continue
        new = [a, b]
        for name in order:
            if name not in new and all(alike(name, member) for member in new):
                new.append(name)
        sets.append(new)
    names = [*ascii_letters, *(f"({i})" for i in range(len(sets)))]
    return {
        name: "".join(n for n, own in zip(names, sets, strict=False) if name in own)
        for name in order
    }


def sensitivity(base: Array, variants: Mapping[tuple[str, str], Array]) -> tuple[Sensitivity, ...]:
    """In how many variants every method that is first stays first, be it with others.

    Args:
        base: [M] scores of M >= 1 methods, higher is better, finite.
        variants: (kind, name of what is left out) → [M] scores without it.

    Returns:
        One per kind, such as "attribute" or "concept", in order of its first variant.
    Source: ours.
    """
    first = base == base.max()
    broken: dict[str, list[str]] = {}
    for (kind, name), other in variants.items():
        broken.setdefault(kind, []).extend([name] if (other[first] < other.max()).any() else [])
    counts = {kind: sum(k == kind for k, _ in variants) for kind in broken}
    return tuple(
        Sensitivity(
            kind=kind,
            variants=counts[kind],
            holds=counts[kind] - len(names),
            broken_by=tuple(names),
        )
        for kind, names in broken.items()
    )
