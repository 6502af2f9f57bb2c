"""Which strengths of a method are run: chosen on validation images, before any test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores, check_array
from casl_bench.metrics.equal_effect import strength_at_effect
from casl_bench.results.record import FULL, Level, headline_level
from casl_bench.runs.suites import Suite

DIP = 0.05
"""A response that falls by more than this share of the full effect as strength grows is flagged."""


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
    """A strength that nobody chose."""
    return StrengthMatch((), strength)


def effect_name(share: float) -> str:
    """Of the level at this share of the full effect."""
    return f"effect_{round(100 * share)}"


def match(responses: Mapping[float, EditScores], suite: Suite, full_effect: float) -> StrengthMatch:
    """Choose a method's strengths.

    Args:
        responses: strength → scores of the same validation images, by the classifier that decides.
        suite: its levels.
        full_effect: mean target change of the perfect edit, in sd, > 0.

    Raises:
        InputError: where the full effect is not positive.
    """
    grid = sorted(responses)
    effects = np.array([_effect(responses[s]) for s in grid])
    flips = np.array([_flips(responses[s]) for s in grid])
    asked = [(effect_name(share), share * full_effect, "sd", effects) for share in suite.effects]
    asked.append((f"flip_{round(100 * suite.flip_goal)}", suite.flip_goal, "share", flips))
    levels = []
    for name, goal, unit, response in asked:
        found = strength_at_effect(grid, response, goal)
        levels.append(
            Level(
                name=name,
                goal=goal,
                unit=unit,
                status=found.status,
                strength=found.strength,
                largest=found.largest,
            )
        )
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
