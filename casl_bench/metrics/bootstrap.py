"""Intervals from resampling images: seeded, and absent rather than of zero width.

Images are the unit that was sampled, so images are what is resampled. Every metric of a cell sees
the same resamples, for a seed and a number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.metric import EditMetric, Estimate

RESAMPLES = 1000
LEVEL = 0.95
"""Nominal coverage of every interval."""

MAX_UNDEFINED = 0.05
"""A resample may leave a ratio undefined (no eligible image in it). A few are dropped; when more
than this share are undefined, the rest no longer describe the metric."""

Interval = tuple[float, float]


def evaluate(
    metric: EditMetric, scores: EditScores, seed: int, *, resamples: int = RESAMPLES
) -> Estimate:
    """A metric's value with its 95 % percentile-bootstrap interval over images.

    There is no interval where fewer than two images count. A share on which all images agree gets
    Wilson's interval, as resampling cannot show any spread there.

    Source: Efron 1979, expanded as in `percentile_interval`; the ratio's columns are resampled
    jointly.
    """
    n = len(scores)
    if n == 0:
        return Estimate(None, 0, reason="no image")
    count = metric.count(scores)
    if (reason := metric.undefined(scores)) is not None:
        return Estimate(None, count, reason=reason)
    columns = metric.per_image(scores)
    value = float(metric.combine(columns.mean(0)))
    if not math.isfinite(value):
        return Estimate(None, count, reason="the value is not finite")
    interval = None
    if count >= 2:
        interval = percentile_interval(
            metric.combine(resampling_weights(n, resamples, seed) @ columns), n=count
        )
        if interval is None and metric.info.unit == "share":
            interval = wilson_interval(value * count, count)
    low, high = interval or (None, None)
    return Estimate(value, count, low, high)


def evaluate_ratio(
    metric: EditMetric, scores: EditScores, reference: EditScores, seed: int
) -> Estimate:
    """metric(scores) / metric(reference), edited otherwise, on the same images in the same order.

    With a norm-matched random direction as the reference this is the number over random. The metric
    is never negative. Undefined where either side is, or where the reference's is 0.

    Raises:
        InputError: if the two differ in their number of images.
    Source: ours.
    """
    n = len(scores)
    if n != len(reference):
        raise InputError(f"a ratio needs the same images, got {n} and {len(reference)}")
    for name, side in (("", scores), ("the reference is ", reference)):
        if n == 0 or (reason := metric.undefined(side)) is not None:
            why = "no image" if n == 0 else reason
            return Estimate(None, n, reason=f"{name}{why}")
    above, below = metric.per_image(scores), metric.per_image(reference)

    def ratio(weights: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):  # refused below as not finite
            return metric.combine(weights @ above) / metric.combine(weights @ below)

    value = float(ratio(np.full(n, 1 / n)))
    if not math.isfinite(value):
        return Estimate(None, n, reason="the reference's value is 0")
    interval = None
    if n >= 2:
        interval = percentile_interval(ratio(resampling_weights(n, RESAMPLES, seed)), n=n)
    low, high = interval or (None, None)
    return Estimate(value, n, low, high)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float], n: int, seed: int, *, resamples: int = RESAMPLES
) -> Interval | None:
    """Percentile interval of any function of row indices (repeats included), NaN where undefined.

    None with fewer than two rows or where nothing varies.
    """
    if n < 2:
        return None
    samples = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return percentile_interval(np.array([statistic(rows) for rows in samples], dtype=np.float64))


@lru_cache(maxsize=64)
def resampling_weights(n: int, resamples: int, seed: int) -> Array:
    """[resamples, n] how often each of n images is in a resample, divided by n. Read-only."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    weights.setflags(write=False)
    return weights


def percentile_interval(values: Array, n: int | None = None) -> Interval | None:
    """The central 95 % of resampled values, or a little more of them where n is small.

    A resample of n spreads as a variance with n instead of n - 1 does, and its tails are a normal's
    where Student's belong: at n = 32 the central 95 % of a ratio of means cover 91 to 93 %. With n
    given, the tails are cut where Student's quantile times sqrt(n / (n - 1)) would cut a normal.

    Args:
        values: of the resamples, NaN or infinite where undefined.
        n: units that were resampled, at least 2; default so many that it does not matter.

    Returns:
        (low, high), or None where there is no spread or too few values.

    Raises:
        InputError: if n is below 2.
    Source: Efron 1979; expanded percentiles of Hesterberg 2015 (What Teachers Should Know About the
    Bootstrap).
    """
    tail = (1 - LEVEL) / 2
    if n is not None:
        if n < 2:
            raise InputError(f"one unit alone cannot be resampled, got n = {n}")
        tail = NormalDist().cdf(float(stdtrit(n - 1, tail)) * math.sqrt(n / (n - 1)))
    kept = values[np.isfinite(values)]
    if len(kept) == 0 or len(kept) < (1 - MAX_UNDEFINED) * len(values):
        return None
    low, high = np.quantile(kept, [tail, 1 - tail])
    # Sums in another order differ in their last bits: that is no spread.
    varies = not math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12)
    return (float(low), float(high)) if varies else None


def student_margin(values: Array) -> Array:
    """[...] half of Student's 95 % interval of the mean of n >= 2 independent values [n, ...].

    Source: Student 1908.
    """
    n = len(values)
    margin: Array = stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(0, ddof=1) / math.sqrt(n)
    return margin


def wilson_interval(successes: float, n: int) -> Interval | None:
    """Wilson's 95 % interval of a share, within [0, 1] and never of zero width; None where n < 1.

    Args:
        successes: count in [0, n]; a mean of counts may be fractional.
        n: trials.

    Raises:
        InputError: if the count is outside [0, n].
    Source: Wilson 1927.
    """
    if n < 1:
        return None
    if not 0 <= successes <= n:
        raise InputError(f"{successes} of {n} is not a share")
    share, z = successes / n, NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Exact at the ends, where rounding would put the share itself outside its interval.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high
