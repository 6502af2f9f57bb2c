"""Every two methods on the same images and concepts: is one better, or is it noise?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from statistics import NormalDist
from string import ascii_letters

import numpy as np

from casl_bench.analysis.uncertainty import ResampledScores, noise_beyond, noise_here
from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL
from casl_bench.metrics.epr_plus import signed_log
from casl_bench.results.record import GAP, POWER, Comparison, Measurement, Pair, Standing


def paired_differences(scores: ResampledScores, unit: str = "share") -> tuple[Pair, ...]:
    """Mean over concepts of s_ac - s_bc of all pairs, with Student's interval and Holm's p.

    Methods are paired image by image, as all edit the same images: a resample weighs an image for
    both. `p_here` is for these very concepts, images alone varying.

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
            status="ok", value=value, low=low, high=high, level=LEVEL, n=images, unit=unit
        )
        here = noise_here(measured, resampled, scores.design).p_value(value)
        names = scores.methods[i], scores.methods[j]
        found.append((*names, difference, here, noise.p_value(value)))
    adjusted = holm([p for *_, p in found])
    return tuple(
        Pair(a=a, b=b, difference=difference, p=p, p_holm=p_holm, p_here=here)
        for (a, b, difference, here, p), p_holm in zip(found, adjusted, strict=True)
    )


def first_places(scores: ResampledScores, seed: int) -> dict[str, float]:
    """Method → share of resamples, of images and of concepts within each data set, it is first in.

    Methods that are first together share a resample. Source: Efron 1979, both ways of sampling.
    """
    kept = scores.resampled[np.isfinite(scores.resampled).all((1, 2))]
    if not len(kept):
        kept = scores.measured[None]
    rng = np.random.default_rng([seed, len(kept)])
    means = np.zeros(kept.shape[:2])
    for dataset in scores.design.datasets:
        columns = np.array(scores.design.columns_of(dataset))
        weight = float(scores.design.weights[columns].sum())
        chosen = columns[rng.integers(len(columns), size=(len(kept), len(columns)))]
        means += weight * np.take_along_axis(kept, chosen[:, None, :], axis=2).mean(2)
    first = means >= means.max(1, keepdims=True) - 1e-12
    shares = (first / first.sum(1, keepdims=True)).mean(0)
    return dict(zip(scores.methods, map(float, shares), strict=True))


def concepts_needed(scores: ResampledScores) -> int | None:
    """Concepts like these for a pair to be told apart that lies `GAP` of the best mean apart.

    With probability `POWER`, two-sided at `ALPHA` over the number of pairs, for a pair whose
    differences vary over concepts as those of the median pair do. None with fewer than two methods
    or concepts in a data set, or where nothing is precise. Source: the normal approximation.
    """
    design, best = scores.design, float((scores.measured @ scores.design.weights).max())
    columns = [design.columns_of(name) for name in design.datasets]
    pairs = list(combinations(range(len(scores.methods)), 2))
    if not pairs or best <= 0 or any(len(own) < 2 for own in columns):
        return None
    variances = []
    for i, j in pairs:
        gap = scores.measured[i] - scores.measured[j]
        within = [gap[own].var(ddof=1) * (len(own) - 1) for own in columns]
        variances.append(sum(within) / (len(gap) - len(columns)))
    normal = NormalDist()
    z = normal.inv_cdf(1 - ALPHA / 2 / len(pairs)) + normal.inv_cdf(POWER)
    return max(2, math.ceil(float(np.median(variances)) * (z / (GAP * best)) ** 2))


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
    scores = {name: standing_value(s) for name, s in kept.items()}
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


def standing_value(standing: Standing) -> float:
    """What ranks a method: its headline, or the signed log of EPR+ in records that that ranks."""
    if standing.headline is None:
        return signed_log(standing.epr_plus.value or 0.0)
    return standing.headline.value or 0.0


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
