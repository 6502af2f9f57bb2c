"""Strengths at equal effect, from the scores of validation images alone."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.metrics.edit_scores import EditScores
from casl_bench.runs.strength import fixed_strength, match
from tests.support.tiny_suite import tiny_suite

SUITE = tiny_suite(strengths=(0.5, 1.0, 2.0))


def scores(change: float, n: int = 4) -> EditScores:
    """Every image's target goes from -1 to -1 + change; its spread is 2."""
    base = np.full((n, 2), -1.0)
    edit = base.copy()
    edit[:, 0] += change
    return EditScores(base, base, edit, 0, 1, np.array([2.0, 1.0]))


def responses(*changes: float) -> dict[float, EditScores]:
    return {s: scores(change) for s, change in zip(SUITE.strengths, changes, strict=True)}


def test_levels_are_shares_of_the_full_effect_and_a_flip_rate() -> None:
    matching = match(responses(1.0, 2.0, 4.0), SUITE, full_effect=2.0)
    levels = {level.name: level for level in matching.levels}
    assert list(levels) == ["effect_25", "effect_50", "effect_75", "flip_50"]
    # The response is 0.5, 1 and 2 sd.
    assert levels["effect_25"].goal == 0.5 and levels["effect_25"].strength == 0.5
    assert levels["effect_50"].strength == 1.0 == matching.strength
    assert levels["effect_75"].strength == 1.5
    # None flips at 0.5, where the logit is 0, and all do at 1: half of the way.
    assert levels["flip_50"].strength == 0.75
    assert matching.strengths == (0.5, 0.75, 1.0, 1.5)
    assert matching.monotone


def test_what_is_not_reached_is_said_and_runs_at_the_largest_effect() -> None:
    matching = match(responses(0.1, 0.6, 0.2), SUITE, full_effect=2.0)
    assert {level.status for level in matching.levels} == {"not_reached"}
    assert matching.strengths == (1.0,) and not matching.monotone
    assert matching.levels[1].largest == pytest.approx(0.3)


def test_an_overshoot_beyond_the_largest_level_is_no_fault() -> None:
    over = responses(2.0, 3.2, 1.0)
    assert match(over, SUITE, full_effect=2.0).monotone  # 75 % is 1.5 sd, reached at strength 1
    assert not match(over, SUITE, full_effect=4.0).monotone  # 75 % is never reached


def test_the_wrong_way_has_a_strength_of_its_own() -> None:
    matching = match(responses(-1.0, -2.0, -4.0), SUITE, full_effect=2.0)
    by_name = {level.name: level for level in matching.levels}
    assert by_name["effect_50"].status == "wrong_way" and by_name["effect_50"].strength == 1.0
    assert by_name["flip_50"].status == "not_reached"
    assert matching.strength == 1.0


def test_strength_one_stands_beside_the_matched_ones_of_a_known_edit() -> None:
    matching = match(responses(1.0, 2.0, 4.0), SUITE, full_effect=4.0).with_full()
    assert matching.levels[-1].name == "full" and 1.0 in matching.strengths
    assert fixed_strength(2.0).strengths == (2.0,) and fixed_strength(2.0).levels == ()


def test_more_strengths_find_the_crossing_again() -> None:
    """A response that is full at 0.1 already: a line from 0 to 0.5 would choose five times that."""
    steep = {0.5: scores(4.0), 1.0: scores(4.0)}
    first = match(steep, SUITE, full_effect=2.0)
    assert first.strength == 0.25
    again = match(steep | {0.25: scores(4.0), 0.05: scores(1.0)}, SUITE, full_effect=2.0)
    assert again.strength == pytest.approx(0.05 + 0.2 / 3, abs=1e-6)
