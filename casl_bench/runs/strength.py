"""The strengths of a method at equal effect: chosen on validation images, before any test image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import RESAMPLES, percentile_interval, resampling_weights
from casl_bench.metrics.metric import Estimate
from casl_bench.results.record import FULL
from casl_bench.results.score_table import Array, EditScores, check_array
from casl_bench.runs.suites import Suite

# At which strength does a method reach a given effect? Read off its response, never beyond it.


Status = Literal["reached", "not_reached", "wrong_way"]

DIP = 0.05
"""A response that falls by more than this share of the full effect as strength grows is flagged."""

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


def crossing(strengths: Sequence[float], effects: ArrayLike, goal: float) -> Crossing:
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


def is_monotone(effects: ArrayLike, full_effect: float) -> bool:
    """Whether the response never falls by more than `DIP` of the full effect as strength grows.

    Args:
        effects: [S] at increasing strengths, finite; 0 at strength 0 comes before them.
        full_effect: > 0, in the same unit.

    Raises:
        InputError: on a full effect that is not positive, or effects that are not finite.
    """
    values = np.concatenate([[0.0], check_array("effects", effects, 1)])
    if not full_effect > 0:
        raise InputError(f"a full effect must be positive, got {full_effect}")
    fall = float((np.maximum.accumulate(values) - values).max())
    return fall <= DIP * full_effect


@dataclass(frozen=True)
class Level:
    """One effect, and the strength at which validation images show it.

    Attributes:
        name: as in records.
        goal: of the effect.
        unit: of `goal`.
        status: whether it was shown.
        strength: where; None where nothing was reached.
        largest: the largest effect seen; None where there was no choice.
    """

    name: str
    goal: float
    unit: str
    status: Status
    strength: float | None
    largest: float | None


@dataclass(frozen=True)
class Matching:
    """What a method runs at on test images.

    Attributes:
        levels: every effect asked for.
        strength: of the headline level; where that is not reached, of the largest effect.
        full_effect: that the levels are shares of, in sd; None where nothing was matched.
        monotone: whether the response never falls as strength grows, up to where it has the largest
            effect asked for.
    """

    levels: tuple[Level, ...]
    strength: float
    full_effect: float | None = None
    monotone: bool = True

    @property
    def strengths(self) -> tuple[float, ...]:
        """All that test images are to be edited at, increasing."""
        chosen = {level.strength for level in self.levels if level.strength is not None}
        return tuple(sorted(chosen | {self.strength}))

    def with_full(self) -> Matching:
        """The same with strength 1 beside the matched ones."""
        full = Level(FULL, 1.0, "strength", "reached", 1.0, None)
        return Matching((*self.levels, full), self.strength, self.full_effect, self.monotone)


def given(strength: float) -> Matching:
    """A strength that nobody chose."""
    return Matching((), strength)


def effect_name(share: float) -> str:
    """Of the level at this share of the full effect."""
    return f"effect_{round(100 * share)}"


def headline_name(suite: Suite) -> str:
    """Of the level that the main table compares methods at."""
    return effect_name(suite.headline_effect)


def match(
    responses: Mapping[float, EditScores],
    suite: Suite,
    full_effect: float,
    *,
    unsigned: bool = False,
) -> Matching:
    """Choose a method's strengths.

    Args:
        responses: strength → scores of the same validation images, by the classifier that decides.
        suite: its levels.
        full_effect: mean target change of the perfect edit, in sd, > 0.
        unsigned: of a random edit: match the change in any direction, at the headline alone.

    Raises:
        InputError: where the full effect is not positive.
    """
    grid = sorted(responses)
    effects = np.array([_effect(responses[s], unsigned) for s in grid])
    shares = (suite.headline_effect,) if unsigned else suite.effects
    levels = []
    for share in shares:
        goal = share * full_effect
        found = crossing(grid, effects, goal)
        levels.append(
            Level(effect_name(share), goal, "sd", found.status, found.strength, found.largest)
        )
    if not unsigned:
        flips = np.array([_flips(responses[s]) for s in grid])
        found = crossing(grid, flips, suite.flip_goal)
        name = f"flip_{round(100 * suite.flip_goal)}"
        levels.append(
            Level(name, suite.flip_goal, "share", found.status, found.strength, found.largest)
        )
    headline = next(level for level in levels if level.name == headline_name(suite))
    strength = headline.strength
    if strength is None:
        strength = grid[int(effects.argmax())]
    # What comes after the largest effect asked for chooses nothing: there an edit may overshoot.
    beyond = np.flatnonzero(effects >= max(shares) * full_effect)
    needed = effects[: beyond[0] + 1] if len(beyond) else effects
    return Matching(tuple(levels), strength, full_effect, is_monotone(needed, full_effect))


def _change(scores: EditScores) -> Array:
    t = scores.target
    change: Array = scores.sign * (scores.edit[:, t] - scores.base[:, t]) / scores.spread[t]
    return change


def _effect(scores: EditScores, unsigned: bool) -> float:
    change = _change(scores)
    return float(np.abs(change).mean() if unsigned else change.mean())


def _flips(scores: EditScores) -> float:
    """Share of all images that come to the asked side from the other.

    Unlike `flip_rate` it is 0 where every image was there already, so that it is always defined.
    """
    before, after = (scores.sign * x[:, scores.target] for x in (scores.base, scores.edit))
    eligible = before <= 0
    return float((after[eligible] > 0).mean()) if eligible.any() else 0.0
