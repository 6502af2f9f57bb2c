"""Which strengths of a method are run: chosen on validation images, before any test image.

A suite's grid is where the search begins. Where a method has not reached what is asked of it and
its response still rises at the last strength, that is doubled, for every method alike: a number
called strength means something else in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.equal_effect import strength_at_effect
from casl_bench.results.record import FULL, Level, headline_level
from casl_bench.results.score_table import ScoreTable
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


RISE = 0.05
"""A response rises as long as a step adds more than this share of what it then is."""

Responses = Mapping[float, EditScores]
"""Strength → scores of the same validation images."""


def still_rises(response: Array) -> bool:
    """Whether the last of a response [S] exceeds all before it, 0 at strength 0 among them."""
    before = max([0.0, *map(float, response[:-1])])
    return float(response[-1]) - before > RISE * abs(float(response[-1]))


@dataclass(frozen=True)
class Goal:
    """An effect asked of a method, in "sd" of the target's logit or as a "share" flipped."""

    name: str
    value: float
    unit: str

    def response(self, responses: Responses) -> Array:
        """[S] in this unit, at increasing strengths."""
        of = _effect if self.unit == "sd" else flipped_share
        return np.array([of(responses[s]) for s in sorted(responses)])

    def level(self, responses: Responses) -> Level:
        """Whether and at which strength it is reached."""
        found = strength_at_effect(sorted(responses), self.response(responses), self.value)
        crossing = asdict(found)
        if found.status == "not_reached" and _rises(responses):
            crossing["status"] = "still_rising"
        return Level(name=self.name, goal=self.value, unit=self.unit, **crossing)


FLIP_GOAL = 0.9
"""Share of images that are to flip: at half of them, edits are at the point of greatest ambiguity,
at all of them one image decides."""

FLIPS = Goal(f"flip_{round(100 * FLIP_GOAL)}", FLIP_GOAL, "share")


def goals_of(suite: Suite, full_effect: float) -> tuple[Goal, ...]:
    """What a suite asks of every method; `full_effect` is that of the perfect edit, in sd."""
    return (
        *(Goal(f"effect_{round(100 * e)}", e * full_effect, "sd") for e in suite.effects),
        FLIPS,
    )


def _rises(responses: Responses) -> bool:
    """By either unit: an edit may move logits long before an image flips."""
    return any(still_rises(Goal("", 0.0, unit).response(responses)) for unit in ("sd", "share"))


def search_strengths(
    score: Callable[[tuple[float, ...]], ScoreTable],
    seen: Callable[[ScoreTable], Responses],
    goals: Sequence[Goal],
    chosen: Callable[[Responses], float],
    suite: Suite,
) -> ScoreTable:
    """Scores of validation images at all strengths that are tried.

    First at the suite's grid; then, while a goal is not reached and the response rises, at twice
    the last strength, as often as the suite allows; then at the strength that all this leads to, as
    a straight line misses where a method has its effect far below the grid's steps.

    Args:
        score: scores of the same images at these strengths.
        seen: what the classifier that decides makes of a table.
        goals: what is asked of the method.
        chosen: the strength that responses lead to.
        suite: its grid, and how often it is doubled.
    """
    table = score(suite.strengths)
    for _ in range(suite.doublings):
        if all(g.level(seen(table)).status != "still_rising" for g in goals):
            break
        table = table.joined(score((2 * max(table.strengths),)))
    strength = chosen(seen(table))
    return table if strength in table.strengths else table.joined(score((strength,)))


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


def match(responses: Responses, suite: Suite, full_effect: float) -> StrengthMatch:
    """Choose a method's strengths from scores of the same validation images at each of a grid.

    Scores are the primary classifier's; `full_effect` > 0 is the mean target change of the perfect
    edit, in sd. Raises InputError where it is not positive.
    """
    grid = sorted(responses)
    effects = Goal("", 0.0, "sd").response(responses)
    levels = [goal.level(responses) for goal in goals_of(suite, full_effect)]
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


def flipped_share(scores: EditScores) -> float:
    """Share of all images that come to the asked side from the other.

    Unlike `flip_rate` it is 0 where every image was there already, so that it is always defined.
    """
    before, after = (scores.sign * x[:, scores.target] for x in (scores.base, scores.edit))
    eligible = before <= 0
    return float((after[eligible] > 0).mean()) if eligible.any() else 0.0
