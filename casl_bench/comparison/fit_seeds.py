"""How much a method's number changes with the seed of its fit, images being the same."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import check_array
from casl_bench.metrics.intervals import LEVEL, student_margin


@dataclass(frozen=True)
class FitSpread:
    """Of the mean over concepts, between fits.

    Attributes:
        mean: over fits.
        sd: standard deviation between fits, with n - 1; None with fewer than two.
        low: lower end of the interval of the mean; None, with `high`, with fewer than two fits or
            where all agree.
        high: upper end.
        level: nominal coverage.
        n: fits.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    level: float
    n: int


def fit_spread(scores: ArrayLike, *, level: float = LEVEL) -> FitSpread:
    """Mean over concepts of each fit, then mean, spread and Student's interval over fits.

    Args:
        scores: [F, C] of F fits on C concepts, on the same images, finite.
        level: nominal coverage, in (0, 1).

    Raises:
        InputError: without a fit or a concept, on NaN or infinity, or a level outside (0, 1).
    Source: Student 1908.
    """
    array = check_array("scores of fits", scores, 2)
    if array.size == 0:
        raise InputError("a spread between fits needs a fit and a concept")
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level}")
    means = array.mean(1)
    n, mean = len(means), float(means.mean())
    if n < 2:
        return FitSpread(mean, None, None, None, level, n)
    sd = float(means.std(ddof=1))
    if sd <= 1e-12 + 1e-9 * abs(mean):  # sums in another order differ in their last bits
        return FitSpread(mean, 0.0, None, None, level, n)
    half = float(student_margin(means, level))
    return FitSpread(mean, sd, mean - half, mean + half, level, n)
