"""Methods at equal effect: the strength that an effect takes, and precision over all effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import RESAMPLES, percentile_interval, resampling_weights
from casl_bench.metrics.edit_scores import Array, EditScores, check_array
from casl_bench.metrics.metric import BASELINE, OTHERS, SPREAD, Estimate, MetricInfo, register_info

# At which strength does a method reach a given effect? Never beyond the strengths that were run.

Status = Literal["reached", "not_reached", "wrong_way"]

DIGITS = 6
"""Decimals of a chosen strength: what is written is what is run."""


@dataclass(frozen=True)
class Crossing:
    """Whether and where a response crosses a goal.

    Attributes:
        status: "reached"; "wrong_way" where the opposite goal is crossed and this one never is;
            else "not_reached".
        strength: at the crossing; None where nothing is crossed.
        largest: the largest response on the grid.
    """

    status: Status
    strength: float | None
    largest: float


def strength_at_effect(strengths: Sequence[float], effects: ArrayLike, goal: float) -> Crossing:
    """The smallest strength at which the effect is the goal, linear between grid points.

    The response starts at (0, 0). Nothing is extrapolated beyond the largest strength.

    Args:
        strengths: S increasing numbers > 0.
        effects: [S] mean effects on the same images at these strengths, finite.
        goal: > 0, in the unit of the effects.

    Raises:
        InputError: on strengths that do not increase from above 0, effects of another shape or not
            finite, or a goal that is not positive.
    Source: ours; the comparison at matched effect that AxBench and similar benchmarks ask for.
    """
    grid = check_array("strengths", strengths, 1)
    values = check_array("effects", effects, 1, grid.shape)
    if not len(grid) or grid[0] <= 0 or (np.diff(grid) <= 0).any():
        raise InputError("strengths must increase from above 0")
    if not (goal > 0 and np.isfinite(goal)):
        raise InputError(f"a goal must be positive, got {goal}")
    largest = float(values.max())
    knots = list(zip([0.0, *grid.tolist()], [0.0, *values.tolist()], strict=True))
    found = _first(knots, goal)
    if found is not None:
        return Crossing("reached", found, largest)
    found = _first([(s, -e) for s, e in knots], goal)
    return Crossing("not_reached" if found is None else "wrong_way", found, largest)


def _first(knots: Sequence[tuple[float, float]], goal: float) -> float | None:
    for (s_0, e_0), (s_1, e_1) in pairwise(knots):
        if e_0 < goal <= e_1:
            return round(s_0 + (s_1 - s_0) * (goal - e_0) / (e_1 - e_0), DIGITS)
    return None


# Area under precision versus effect: one number over all levels of effect.

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


def precision(target_change: Array, others_change: Array) -> Array:
    """[...] T / (|T| + N) in [-1, 1]: the signed share that the target has in all that moves.

    T is the target's change, signed, and N >= 0 the others' mean change, both in sd. Where T >= 0
    it is EPR / (1 + EPR): the same order on a bounded scale, so that it can be averaged over
    effects and is 0 where an effect is not reached. 0 where nothing moved.

    Source: ours.
    """
    total = np.abs(target_change) + others_change
    share: Array = np.divide(target_change, total, out=np.zeros(total.shape), where=total > 0)
    return share


def area(effects: ArrayLike, precisions: Array) -> Array:
    """[...] mean precision between the smallest and the largest effect, by the trapezoid rule.

    Args:
        effects: [L] increasing, L >= 2.
        precisions: [..., L], 0 where an effect was not reached.

    Raises:
        InputError: on fewer than two effects or effects that do not increase.
    Source: ours.
    """
    x, y = check_array("effects", effects, 1), precisions
    if len(x) < 2 or (np.diff(x) <= 0).any() or y.shape[-1:] != x.shape:
        raise InputError("an area needs a precision for each of two or more increasing effects")
    inner: Array = ((y[..., 1:] + y[..., :-1]) / 2 * np.diff(x)).sum(-1)
    height: Array = inner / (x[-1] - x[0])
    return height


def precision_area(
    effects: Sequence[float], levels: Sequence[EditScores | None], seed: int
) -> Estimate:
    """`area` of `precision` over levels of effect, in [-1, 1]; undefined where none was reached.

    Args:
        effects: L increasing shares of the full effect.
        levels: L scores of the same n images, None where the level was not reached: 0 there.
        seed: of the resamples, common to all levels.

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
