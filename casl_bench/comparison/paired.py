"""Every two methods on the same images and concepts: is one better, or is it noise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from casl_bench.comparison.noise import noise_beyond
from casl_bench.comparison.resampling import ScoreDraws
from casl_bench.core.errors import InputError
from casl_bench.metrics.intervals import LEVEL


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
