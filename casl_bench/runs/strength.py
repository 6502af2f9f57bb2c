"""Which strengths of a method are run: chosen on validation images, before any test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.equal_effect import strength_at_effect
from casl_bench.results.record import FULL, Level, headline_level
from casl_bench.runs.suites import Suite

DIP = 0.05
"""A response that falls by more than this share of the full effect as strength grows is flagged."""


def is_monotone(effects: Array, full_effect: float) -> bool:
    """Whether the response never falls by more than `DIP` of the full effect as strength grows.

    `effects` are [S], at increasing strengths, after 0 at strength 0, in the same unit.
    """
    values = np.concatenate([[0.0], effects])
    fall = float((np.maximum.accumulate(values) - values).max())
    return fall <= DIP * full_effect


@dataclass(frozen=True)
class StrengthMatch:
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

    def with_full(self) -> StrengthMatch:
        """The same with strength 1 beside the matched ones."""
        full = Level(name=FULL, goal=1.0, unit="strength", status="reached", strength=1.0)
        return StrengthMatch((*self.levels, full), self.strength, self.full_effect, self.monotone)


def fixed_strength(strength: float) -> StrengthMatch:
    """A strength that was not chosen on images."""
    return StrengthMatch((), strength)


def match(responses: Mapping[float, EditScores], suite: Suite, full_effect: float) -> StrengthMatch:
    """Choose a method's strengths from scores of the same validation images at each of a grid.

    Scores are the primary classifier's; `full_effect` > 0 is the mean target change of the perfect
    edit, in sd. Raises InputError where it is not positive.
    """
    grid = sorted(responses)
    effects = np.array([_effect(responses[s]) for s in grid])
    flips = np.array([_flips(responses[s]) for s in grid])
    asked = [
        (f"effect_{round(100 * share)}", share * full_effect, "sd", effects)
        for share in suite.effects
    ]
    asked.append((f"flip_{round(100 * suite.flip_goal)}", suite.flip_goal, "share", flips))
    levels = []
    for name, goal, unit, response in asked:
        found = strength_at_effect(grid, response, goal)
        levels.append(Level(name=name, goal=goal, unit=unit, **asdict(found)))
    headline = headline_level(levels)
    assert headline is not None  # every suite has effects
    strength = headline.strength
    if strength is None:
        strength = grid[int(effects.argmax())]
    # What comes after the largest effect asked for chooses nothing: there an edit may overshoot.
    beyond = np.flatnonzero(effects >= max(suite.effects) * full_effect)
    needed = effects[: beyond[0] + 1] if len(beyond) else effects
    return StrengthMatch(tuple(levels), strength, full_effect, is_monotone(needed, full_effect))


def _effect(scores: EditScores) -> float:
    t = scores.target
    change = scores.sign * (scores.edit[:, t] - scores.base[:, t]) / scores.spread[t]
    return float(change.mean())


def _flips(scores: EditScores) -> float:
    """Share of all images that come to the asked side from the other.

    Unlike `flip_rate` it is 0 where every image was there already, so that it is always defined.
    """
    before, after = (scores.sign * x[:, scores.target] for x in (scores.base, scores.edit))
    eligible = before <= 0
    return float((after[eligible] > 0).mean()) if eligible.any() else 0.0
