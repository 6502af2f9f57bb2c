"""Area under precision versus effect: one number over all levels of effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import RESAMPLES, percentile_interval, resampling_weights
from casl_bench.metrics.edit_scores import Array, EditScores, check_array
from casl_bench.metrics.metric import (
    BASELINE,
    OTHERS,
    SPREAD,
    Estimate,
    MetricInfo,
    register_info,
)

PRECISION_AREA_INFO = register_info(
    MetricInfo(
        name="precision_area",
        version=1,
        higher_is_better=True,
        unit="share",
        bounds=(-1, 1),
        title="area under precision",
        scale_free=True,
        depends_on=(OTHERS, BASELINE, SPREAD, "levels: shares of the perfect edit's effect"),
    )
)


def precision(target_change: ArrayLike, others_change: ArrayLike) -> Array:
    """T / (|T| + N): the signed share that the target has in all that moves.

    EPR / (1 + EPR) where T >= 0: the same order on a bounded scale, so that it can be averaged
    over effects and is 0 where an effect is not reached.

    Args:
        target_change: [...] T, signed, in sd.
        others_change: [...] N >= 0, mean change of the others, in sd.

    Returns:
        [...] in [-1, 1]; 0 where nothing moved.

    Raises:
        InputError: on NaN or infinity, or a negative N.
    Source: ours.
    """
    t, n = np.asarray(target_change, np.float64), np.asarray(others_change, np.float64)
    if not (np.isfinite(t).all() and np.isfinite(n).all() and (n >= 0).all()):
        raise InputError("changes must be finite, and those of the others not negative")
    total = np.abs(t) + n
    share: Array = np.divide(t, total, out=np.zeros(total.shape), where=total > 0)
    return share


def area(effects: ArrayLike, precisions: ArrayLike) -> Array:
    """Mean precision between the smallest and the largest effect, by the trapezoid rule.

    Args:
        effects: [L] increasing, L >= 2.
        precisions: [..., L], 0 where an effect was not reached.

    Returns:
        [...] in [-1, 1].

    Raises:
        InputError: on fewer than two effects or effects that do not increase.
    Source: ours.
    """
    x = check_array("effects", effects, 1)
    y = np.asarray(precisions, np.float64)
    if len(x) < 2 or (np.diff(x) <= 0).any() or y.shape[-1:] != x.shape:
        raise InputError("an area needs a precision for each of two or more increasing effects")
    inner: Array = ((y[..., 1:] + y[..., :-1]) / 2 * np.diff(x)).sum(-1)
    height: Array = inner / (x[-1] - x[0])
    return height


def precision_area(
    effects: Sequence[float], levels: Sequence[EditScores | None], seed: int
) -> Estimate:
    """Area under precision versus effect, between the smallest and the largest level.

    Args:
        effects: L increasing shares of the full effect.
        levels: L scores of the same n images, None where the level was not reached: 0 there.
        seed: of the resamples, drawn jointly for all levels.

    Returns:
        In [-1, 1] with its interval; undefined where no level was reached.

    Raises:
        InputError: as `area`, or on scores of different numbers of images.
    Source: ours.
    """
    there = [scores for scores in levels if scores is not None]
    if not there:
        return Estimate(None, 0, reason="no level was reached")
    n = len(there[0])
    if any(len(scores) != n for scores in there):
        raise InputError("levels of different images have no area")

    def of(weights: Array) -> Array:
        columns = []
        for scores in levels:
            if scores is None:
                columns.append(np.zeros(len(weights)))
                continue
            change = (scores.edit - scores.base) / scores.spread
            target = weights @ (scores.sign * change[:, scores.target])
            others = weights @ np.abs(change[:, scores.others]).mean(1)
            columns.append(precision(target, others))
        return area(effects, np.stack(columns, axis=-1))

    value = float(of(np.full((1, n), 1 / n))[0])
    interval = None
    if n >= 2:
        interval = percentile_interval(of(resampling_weights(n, RESAMPLES, seed)), n=n)
    low, high = interval or (None, None)
    return Estimate(value, n, low, high)
