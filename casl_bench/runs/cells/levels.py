"""The strengths of a method at equal effect: chosen on validation images, before any test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.effect_matching import Status, crossing, is_monotone
from casl_bench.records.record import FULL
from casl_bench.runs.planning.config import Suite


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
