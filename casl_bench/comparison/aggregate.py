"""The mean of each method over concepts, with an interval for these concepts or for others."""

from __future__ import annotations

from dataclasses import dataclass

from casl_bench.comparison.noise import noise_beyond, noise_here
from casl_bench.comparison.resampling import ScoreDraws
from casl_bench.metrics.intervals import LEVEL


@dataclass(frozen=True)
class Aggregate:
    """One method's mean.

    Attributes:
        method: its name.
        value: weighted mean over concepts of its scores.
        low: lower end of the interval; None, with `high`, where there is none.
        high: upper end.
        level: nominal coverage.
        concepts: C behind the mean.
        images: distinct images behind it.
        reason: why there is no interval; None where there is one.
    """

    method: str
    value: float
    low: float | None
    high: float | None
    level: float
    concepts: int
    images: int
    reason: str | None = None


def aggregates(
    draws: ScoreDraws, *, generalise: bool = True, macro: bool = False, level: float = LEVEL
) -> tuple[Aggregate, ...]:
    """sum_c w_c s_mc of each method m, with w_c = 1/C or, macro, 1/(D C_d) for D data sets.

    Args:
        draws: scores as measured and under resampled images.
        generalise: the interval is for other concepts like these, too; otherwise for these very
            concepts, and images alone vary.
        macro: give each data set the same weight instead of each concept.
        level: nominal coverage, in (0, 1).

    Returns:
        One a method, in the order of `draws`. No interval with fewer than two images in a data set,
        where nothing varies or, if it generalises, with fewer than two concepts in a data set.

    Raises:
        InputError: if the level is outside (0, 1).
    Source: see `noise`.
    """
    weights = draws.design.weights(macro)
    noise_of = noise_beyond if generalise else noise_here
    found = []
    for m, method in enumerate(draws.methods):
        value = float(draws.scores[m] @ weights)
        noise = noise_of(draws.scores[m], draws.draws[:, m], draws.design, macro=macro)
        low, high = noise.interval(value, level) or (None, None)
        concepts, images = len(weights), sum(draws.design.images_of().values())
        found.append(Aggregate(method, value, low, high, level, concepts, images, noise.reason))
    return tuple(found)
