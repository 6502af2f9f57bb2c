"""Ranks and letters follow from which pairs are told apart, and from nothing else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.analysis.significance import Difference, RankInterval, rank_intervals
from casl_bench.core.errors import InputError

SCORES = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}


def pairs(scores: dict[str, float], told_apart: set[str], p: float = 0.01) -> list[Difference]:
    """Differences of all methods; those named "xy" have this adjusted p."""
    return [
        Difference(
            x, y, scores[x] - scores[y], 0, 1, 0.95, 0.5, p if x + y in told_apart else 0.6, 8, 100
        )
        for x, y in combinations(scores, 2)
    ]


def ranks(scores: dict[str, float], told_apart: set[str]) -> dict[str, RankInterval]:
    return {r.method: r for r in rank_intervals(scores, pairs(scores, told_apart))}


def test_ranks_by_hand() -> None:
    """a beats c and d, b beats d: a ≈ b, b ≈ c, c ≈ d."""
    found = ranks(SCORES, {"ac", "ad", "bd"})
    assert {k: (r.low, r.high, r.group) for k, r in found.items()} == {
        "a": (1, 2, "a"),
        "b": (1, 3, "ab"),
        "c": (2, 4, "bc"),
        "d": (3, 4, "c"),
    }


def test_all_apart_and_all_alike() -> None:
    apart = ranks(SCORES, {"ab", "ac", "ad", "bc", "bd", "cd"})
    assert [(r.low, r.high, r.group) for r in apart.values()] == [
        (1, 1, "a"),
        (2, 2, "b"),
        (3, 3, "c"),
        (4, 4, "d"),
    ]
    alike = ranks(SCORES, set())
    assert {(r.low, r.high, r.group) for r in alike.values()} == {(1, 4, "a")}


def test_a_noisy_method_in_between_ties_with_both_sides() -> None:
    """b is so noisy that nothing beats it, while a beats c and d."""
    found = ranks(SCORES, {"ac", "ad"})
    assert (found["b"].low, found["b"].high, found["b"].group) == (1, 4, "ab")
    assert found["a"].group == "a" and found["c"].group == "b" and found["d"].group == "b"
    assert (found["a"].low, found["a"].high, found["c"].low) == (1, 2, 2)


def test_one_method_is_first() -> None:
    assert rank_intervals({"x": 0.0}, []) == (RankInterval("x", 0.0, 1, 1, "a"),)


def test_rows_stand_by_score_then_by_name_whatever_the_order_given() -> None:
    scores = {"z": 1.0, "y": 2.0, "x": 1.0}
    assert [r.method for r in rank_intervals(scores, pairs(scores, set()))] == ["y", "x", "z"]


def test_a_pair_without_a_test_is_never_told_apart() -> None:
    nothing = [Difference("x", "y", 5.0, None, None, 0.95, None, None, 1, 100)]
    assert [(r.low, r.high, r.group) for r in rank_intervals({"x": 5.0, "y": 0.0}, nothing)] == [
        (1, 2, "a"),
        (1, 2, "a"),
    ]


def test_alpha_is_the_level_of_the_decision() -> None:
    differences = pairs({"x": 1.0, "y": 0.0}, {"xy"}, p=0.04)
    assert rank_intervals({"x": 1.0, "y": 0.0}, differences)[1].low == 2
    assert rank_intervals({"x": 1.0, "y": 0.0}, differences, alpha=0.03)[1].low == 1


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_letters_and_ranks_say_what_the_pairs_say(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {f"{k}": float(v) for k, v in enumerate(rng.normal(size=count))}
    told = {x + y for x, y in combinations(scores, 2) if rng.uniform() < 0.5}
    found = ranks(scores, told)
    order = list(found)
    for x, y in combinations(scores, 2):
        assert (not set(found[x].group) & set(found[y].group)) == (x + y in told)
    for place, name in enumerate(order, 1):
        assert found[name].low <= place <= found[name].high
        assert found[name].group
    assert found[order[0]].group.startswith("a")


def test_missing_double_and_foreign_pairs_are_refused() -> None:
    full = pairs(SCORES, set())
    for wrong in (full[1:], [*full, full[0]], [*full[1:], full[1]]):
        with pytest.raises(InputError, match="every two methods"):
            rank_intervals(SCORES, wrong)
    with pytest.raises(InputError, match="every two methods"):
        rank_intervals({"a": 1.0, "b": 0.0}, full)
    with pytest.raises(InputError, match="alpha"):
        rank_intervals(SCORES, full, alpha=0)
