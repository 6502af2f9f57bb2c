"""Strengths at equal effect, from the scores of validation images alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from casl_bench.metrics.edit_scores import EditScores
from casl_bench.results.score_table import ScoreTable
from casl_bench.runs.strength import (
    Responses,
    StrengthMatch,
    fixed_strength,
    goals_of,
    match,
    search_strengths,
    still_rises,
)
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
    assert list(levels) == ["effect_25", "effect_50", "effect_75", "flip_90"]
    # The response is 0.5, 1 and 2 sd.
    assert levels["effect_25"].goal == 0.5 and levels["effect_25"].strength == 0.5
    assert levels["effect_50"].strength == 1.0 == matching.strength
    assert levels["effect_75"].strength == 1.5
    # None flips at 0.5, where the logit is 0, and all do at 1: nine tenths of the way.
    assert levels["flip_90"].strength == 0.95
    assert matching.strengths == (0.5, 0.95, 1.0, 1.5)
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
    assert by_name["flip_90"].status == "not_reached"
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


# Beyond the grid: twice the last strength, as long as the response rises.


def searched(
    response: Callable[[float], float], doublings: int = 4
) -> tuple[tuple[float, ...], StrengthMatch, int]:
    """Strengths tried, what they lead to, and in how many calls: full effect 2 sd, spread 2."""
    suite, calls = SUITE.model_copy(update={"doublings": doublings}), 0

    def score(strengths: tuple[float, ...]) -> ScoreTable:
        nonlocal calls
        calls += 1
        base = np.full((1, 4, 2), -1.0)
        edit = np.repeat(base[None], len(strengths), 0).swapaxes(0, 1)
        edit[0, :, :, 0] += np.array([2 * response(s) for s in strengths])[:, None]
        ids = tuple("abcd")
        return ScoreTable(ids, strengths, ("t", "o"), ("c",), base, base, edit)

    def seen(table: ScoreTable) -> Responses:
        return {s: table.at(s, "t", np.array([2.0, 1.0])) for s in table.strengths}

    table = search_strengths(
        score, seen, goals_of(suite, 2.0), lambda r: match(r, suite, 2.0).strength, suite
    )
    return table.strengths, match(seen(table), suite, 2.0), calls


def test_a_grid_that_holds_every_goal_is_left_alone() -> None:
    strengths, found, calls = searched(lambda s: s)
    assert strengths == SUITE.strengths and calls == 1
    assert {level.status for level in found.levels} == {"reached"}


def test_a_response_that_rises_is_followed_until_it_has_what_is_asked() -> None:
    strengths, found, _ = searched(lambda s: s / 10)
    assert {4.0, 8.0, 16.0} <= set(strengths) and max(strengths) == 16.0
    assert {level.status for level in found.levels} == {"reached"}
    assert found.strength == pytest.approx(10.0)
    assert 10.0 in strengths  # where all this leads to is tried, too


@pytest.mark.parametrize(
    "response",
    [
        lambda s: min(s, 1.0) * 0.4,  # saturates
        lambda s: 0.4 * np.exp(-((s - 1) ** 2)),  # falls
        lambda s: 0.0,  # does nothing
        lambda s: -0.1 * s,  # the wrong way
    ],
)
def test_what_has_stopped_rising_is_not_followed(response: Callable[[float], float]) -> None:
    strengths, found, calls = searched(response)
    assert max(strengths) == SUITE.strengths[-1] and calls <= 2
    assert {level.status for level in found.levels} <= {"not_reached", "wrong_way"}


def test_not_reached_is_not_said_of_what_still_rises_at_the_end() -> None:
    strengths, found, _ = searched(lambda s: s / 1000)
    assert max(strengths) == 2.0 * 2**4
    assert {level.status for level in found.levels} == {"still_rising"}
    assert all(level.strength is None for level in found.levels)
    strengths, found, _ = searched(lambda s: s / 10, doublings=0)
    assert max(strengths) == 2.0
    assert "still_rising" in {level.status for level in found.levels}


def test_saturation_is_a_share_of_the_response_itself() -> None:
    assert still_rises(np.array([0.001, 0.002])) and still_rises(np.array([0.5]))
    assert not still_rises(np.array([1.0, 1.04]))
    assert still_rises(np.array([1.0, 1.06]))
    assert not still_rises(np.array([2.0, 1.0, 1.9]))  # larger than the one before, not than all
    assert not still_rises(np.array([-2.0, -1.0]))  # less of the wrong way is no response
