"""Every two methods on the same images and concepts: is one better, or is it noise?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement
from string import ascii_letters

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.analysis.uncertainty import ScoreDraws, noise_beyond
from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL
from casl_bench.metrics.edit_scores import check_array


@dataclass(frozen=True)
class Difference:
    """Two methods.

    Attributes:
        a: the one.
        b: the other.
        value: mean over concepts of the score of a less that of b.
        low: lower end of its interval, of this pair by itself; None, with `high`, where there is
            none.
        high: upper end.
        level: nominal coverage.
        p: two-sided, of no difference; None where there is no interval.
        p_holm: adjusted for all pairs of the comparison; what decisions go by.
        concepts: C behind the mean.
        images: distinct images behind it.
        reason: why there is no interval; None where there is one.
    """

    a: str
    b: str
    value: float
    low: float | None
    high: float | None
    level: float
    p: float | None
    p_holm: float | None
    concepts: int
    images: int
    reason: str | None = None


def paired_differences(
    draws: ScoreDraws, *, macro: bool = False, level: float = LEVEL
) -> tuple[Difference, ...]:
    """Δ = sum_c w_c (s_ac - s_bc) of all pairs, with Student's interval and Holm's p.

    Concepts always count as drawn: with them held fixed, two fits of one method that differ by
    nothing but their seed are told apart, for each concept has its own fit. Degrees of freedom are
    the cautious ones (see `noise_beyond`), as a false win costs more than a missed one.

    Args:
        draws: scores as measured and under resampled images.
        macro: give each data set the same weight instead of each concept.
        level: nominal coverage of an interval, in (0, 1).

    Returns:
        M (M - 1) / 2 pairs, a before b in the order of `draws`.

    Raises:
        InputError: if the level is outside (0, 1).
    Source: see `noise`; Holm 1979.
    """
    weights = draws.design.weights(macro)
    images = sum(draws.design.images_of().values())
    found = []
    for i, j in combinations(range(len(draws.methods)), 2):
        scores = draws.scores[i] - draws.scores[j]
        # Undefined for both methods: infinities would cancel to a NaN that numpy warns of.
        with np.errstate(invalid="ignore"):
            resampled = draws.draws[:, i] - draws.draws[:, j]
        value = float(scores @ weights)
        noise = noise_beyond(scores, resampled, draws.design, macro=macro, cautious=True)
        low, high = noise.interval(value, level) or (None, None)
        found.append(
            Difference(
                draws.methods[i],
                draws.methods[j],
                value,
                low,
                high,
                level,
                noise.p_value(value),
                None,
                len(weights),
                images,
                noise.reason,
            )
        )
    adjusted = holm([d.p for d in found])
    return tuple(replace(d, p_holm=p) for d, p in zip(found, adjusted, strict=True))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted so that all tests together err with probability alpha at most.

    max over the tests up to this one, in order of p, of (N - place) p, at most 1.

    Args:
        p_values: N in [0, 1]; None where there is no test, which counts as one that failed.

    Returns:
        In the order given, None where None was given.

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


# Do two scorers put the methods in the same order?


@dataclass(frozen=True)
class Agreement:
    """Of two orders.

    Attributes:
        tau: Kendall's tau-b in [-1, 1]; None where either order has a single place, or n < 2.
        n: what is put in order.
    """

    tau: float | None
    n: int


def kendall_tau(a: ArrayLike, b: ArrayLike) -> Agreement:
    """sum_ij x_ij y_ij / sqrt(sum_ij x_ij² sum_ij y_ij²), with x_ij = sign(a_i - a_j), y_ij of b.

    Pairs in the same order less pairs in the opposite order, of those that could be in one: ties
    are taken out on either side.

    Args:
        a: [n] scores or ranks by one scorer, finite.
        b: [n] by another, the same way round.

    Raises:
        InputError: on different lengths, NaN or infinity.
    Source: Kendall 1945.
    """
    from scipy.stats import kendalltau  # takes a second to import

    first, second = check_array("a", a, 1), check_array("b", b, 1)
    if len(first) != len(second):
        raise InputError(f"two orders of the same, got {len(first)} and {len(second)} values")
    tau = float(kendalltau(first, second).statistic) if len(first) > 1 else math.nan
    # A perfect agreement is 1 exactly, whatever its square roots round to.
    return Agreement(round(tau, 15) if math.isfinite(tau) else None, len(first))


# Ranks that the noise leaves open, and groups of methods that it does not tell apart.


ALPHA = 0.05
"""Probability that any pair at all is falsely told apart."""


@dataclass(frozen=True)
class RankInterval:
    """One method's place.

    Attributes:
        method: its name.
        score: by which it stands where it stands.
        low: best rank left open, 1 first.
        high: worst rank left open.
        group: letters, the best method's first; two methods are told apart just where they share
            none.
    """

    method: str
    score: float
    low: int
    high: int
    group: str


def rank_intervals(
    scores: Mapping[str, float], differences: Sequence[Difference], *, alpha: float = ALPHA
) -> tuple[RankInterval, ...]:
    """From 1 + (methods significantly better) to M - (methods significantly worse).

    Holm's adjustment holds over all pairs together, so with probability 1 - alpha all the true
    ranks lie in their intervals together.

    Args:
        scores: method → its mean over concepts, higher is better.
        differences: of every two of these methods.
        alpha: level of the decisions, in (0, 1).

    Returns:
        Best score first, equal scores in order of name: where two share a letter, that order is no
        result.

    Raises:
        InputError: if a pair is missing, given twice or of another method, or alpha outside (0, 1).
    Source: ranks from pairwise tests as in Mogstad, Romano, Shaikh & Wilhelm 2024; letters as in
    Piepho 2004.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be in (0, 1), got {alpha}")
    order = sorted(scores, key=lambda name: (-scores[name], name))
    pairs = {frozenset((d.a, d.b)) for d in differences}
    wanted = {frozenset((a, b)) for a in order for b in order if a != b}
    if pairs != wanted or len(differences) != len(wanted):
        raise InputError("ranks need the difference of every two methods, once")
    beaten = _beaten(differences, alpha)
    letters = _letters(order, beaten)
    return tuple(
        RankInterval(
            name,
            scores[name],
            1 + sum(loser == name for _, loser in beaten),
            len(order) - sum(winner == name for winner, _ in beaten),
            letters[name],
        )
        for name in order
    )


def _beaten(differences: Sequence[Difference], alpha: float) -> set[tuple[str, str]]:
    """(winner, loser) of every pair that is told apart."""
    told = [d for d in differences if d.p_holm is not None and d.p_holm <= alpha]
    return {(d.a, d.b) if d.value > 0 else (d.b, d.a) for d in told}


def _letters(order: Sequence[str], beaten: set[tuple[str, str]]) -> dict[str, str]:
    """Groups of methods of which no two are told apart, until each such pair is in one."""

    def alike(a: str, b: str) -> bool:
        return (a, b) not in beaten and (b, a) not in beaten

    groups: list[list[str]] = []
    for a, b in combinations_with_replacement(order, 2):
        if not alike(a, b) or any(a in group and b in group for group in groups):
            continue
        group = [a, b]
        for name in order:
            if name not in group and all(alike(name, member) for member in group):
                group.append(name)
        groups.append(group)
    names = [*ascii_letters, *(f"({i})" for i in range(len(groups)))]
    return {
        name: "".join(n for n, group in zip(names, groups, strict=False) if name in group)
        for name in order
    }


# What the first rank rests on: does it hold whatever is left out?


@dataclass(frozen=True)
class KindSensitivity:
    """Variants of one kind, each with one thing left out.

    Attributes:
        kind: e.g. "attribute", "scorer", "data set" or "concept".
        variants: how many.
        broken_by: names of those in which rank 1 does not hold.
    """

    kind: str
    variants: int
    broken_by: tuple[str, ...]

    @property
    def holds(self) -> int:
        """In how many rank 1 holds."""
        return self.variants - len(self.broken_by)


@dataclass(frozen=True)
class Sensitivity:
    """All variants.

    Attributes:
        kinds: in order of their first variant.
    """

    kinds: tuple[KindSensitivity, ...]

    @property
    def variants(self) -> int:
        """How many in all."""
        return sum(k.variants for k in self.kinds)

    @property
    def holds(self) -> int:
        """In how many of all rank 1 holds."""
        return sum(k.holds for k in self.kinds)


def sensitivity(base: ArrayLike, variants: Mapping[tuple[str, str], ArrayLike]) -> Sensitivity:
    """In how many variants every method that is first stays first, be it with others.

    Args:
        base: [M] scores of the methods, higher is better, finite.
        variants: (kind, name of what is left out) → [M] scores without it.

    Raises:
        InputError: without a method, on another number of scores, NaN or infinity.
    Source: ours.
    """
    scores = check_array("base", base, 1)
    if len(scores) == 0:
        raise InputError("sensitivity needs at least one method")
    first = scores == scores.max()
    broken: dict[str, list[str]] = {}
    for (kind, name), values in variants.items():
        other = check_array(f"variant '{name}'", values, 1, scores.shape)
        broken.setdefault(kind, []).extend([name] if (other[first] < other.max()).any() else [])
    counts = {kind: sum(k == kind for k, _ in variants) for kind in broken}
    return Sensitivity(
        tuple(KindSensitivity(kind, counts[kind], tuple(names)) for kind, names in broken.items())
    )
