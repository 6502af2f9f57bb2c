"""At which strength does a method reach a given effect? Read off its response, never beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import check_array

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

    The response starts at (0, 0): no strength, no effect. Nothing is extrapolated beyond the
    largest strength that was run.

    Args:
        strengths: S increasing numbers > 0.
        effects: [S] mean effects on the same images at these strengths, finite.
        goal: > 0, in the unit of the effects.

    Returns:
        Where the goal is crossed first.

    Raises:
        InputError: on strengths that do not increase from above 0, effects of another shape or not
            finite, or a goal that is not positive.
    Source: ours; the comparison at matched effect that AxBench and anchors of its kind ask for.
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
