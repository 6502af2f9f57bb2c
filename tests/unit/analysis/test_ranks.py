"""Ranks and letters follow from which pairs differ significantly, and from nothing else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.analysis.significance import RankInterval, rank_intervals, ranks_within
from casl_bench.core.errors import InputError
from casl_bench.results.record import Comparison, Measurement, Pair, Standing

SCORES = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}


def pair(a: str, b: str, value: float, p: float | None) -> Pair:
    return Pair(a=a, b=b, difference=Measurement.of(value, 100, "log ratio"), p=p, p_holm=p)


def pairs(scores: dict[str, float], apart: set[str], p: float = 0.01) -> list[Pair]:
    """Differences of all methods; those named "xy" have this adjusted p."""
    return [
        pair(x, y, scores[x] - scores[y], p if x + y in apart else 0.6)
        for x, y in combinations(scores, 2)
    ]


def ranks(scores: dict[str, float], apart: set[str]) -> dict[str, RankInterval]:
    return {r.method: r for r in rank_intervals(scores, pairs(scores, apart))}


def test_ranks_by_hand() -> None:
    """a is better than c and d, b than d: a ≈ b, b ≈ c, c ≈ d."""
    found = ranks(SCORES, {"ac", "ad", "bd"})
    assert {k: (r.low, r.high, r.letters) for k, r in found.items()} == {
        "a": (1, 2, "a"),
        "b": (1, 3, "ab"),
        "c": (2, 4, "bc"),
        "d": (3, 4, "c"),
    }


def test_all_apart_and_all_alike() -> None:
    apart = ranks(SCORES, {"ab", "ac", "ad", "bc", "bd", "cd"})
    assert [(r.low, r.high, r.letters) for r in apart.values()] == [
        (1, 1, "a"),
        (2, 2, "b"),
        (3, 3, "c"),
        (4, 4, "d"),
    ]
    alike = ranks(SCORES, set())
    assert {(r.low, r.high, r.letters) for r in alike.values()} == {(1, 4, "a")}


def test_a_noisy_method_in_between_ties_with_both_sides() -> None:
    """b is so noisy that nothing beats it, while a beats c and d."""
    found = ranks(SCORES, {"ac", "ad"})
    assert (found["b"].low, found["b"].high, found["b"].letters) == (1, 4, "ab")
    assert found["a"].letters == "a" and found["c"].letters == "b" and found["d"].letters == "b"
    assert (found["a"].low, found["a"].high, found["c"].low) == (1, 2, 2)


def test_one_method_is_first() -> None:
    assert rank_intervals({"x": 0.0}, []) == (RankInterval("x", 1, 1, "a"),)


def test_rows_stand_by_score_then_by_name_whatever_the_order_given() -> None:
    scores = {"z": 1.0, "y": 2.0, "x": 1.0}
    assert [r.method for r in rank_intervals(scores, pairs(scores, set()))] == ["y", "x", "z"]


def test_a_pair_without_a_test_never_differs() -> None:
    nothing = [pair("x", "y", 5.0, None)]
    assert [(r.low, r.high, r.letters) for r in rank_intervals({"x": 5.0, "y": 0.0}, nothing)] == [
        (1, 2, "a"),
        (1, 2, "a"),
    ]


def test_five_percent_is_the_level_of_the_decision() -> None:
    scores = {"x": 1.0, "y": 0.0}
    assert rank_intervals(scores, pairs(scores, {"xy"}, p=0.05))[1].low == 2
    assert rank_intervals(scores, pairs(scores, {"xy"}, p=0.051))[1].low == 1


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_letters_and_ranks_say_what_the_pairs_say(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {f"{k}": float(v) for k, v in enumerate(rng.normal(size=count))}
    apart = {x + y for x, y in combinations(scores, 2) if rng.uniform() < 0.5}
    found = ranks(scores, apart)
    order = list(found)
    for x, y in combinations(scores, 2):
        assert (not set(found[x].letters) & set(found[y].letters)) == (x + y in apart)
    for place, name in enumerate(order, 1):
        assert found[name].low <= place <= found[name].high
        assert found[name].letters
    assert found[order[0]].letters.startswith("a")


def test_missing_double_and_foreign_pairs_are_refused() -> None:
    full = pairs(SCORES, set())
    for wrong in (full[1:], [*full, full[0]], [*full[1:], full[1]]):
        with pytest.raises(InputError, match="every two methods"):
            rank_intervals(SCORES, wrong)
    with pytest.raises(InputError, match="every two methods"):
        rank_intervals({"a": 1.0, "b": 0.0}, full)


def compared(scores: dict[str, float], apart: set[str]) -> Comparison:
    found = ranks(scores, apart)
    standings = tuple(
        Standing(
            method=name,
            epr_plus=Measurement.of(scores[name], 100, "ratio"),
            epr_plus_here=Measurement.of(scores[name], 100, "ratio"),
            rank_low=found[name].low, rank_high=found[name].high, group=found[name].letters,
            reached=3, wrong_way=0, cells=3,
            fit_sd=Measurement.undefined("a single fit", 1, "log ratio"),
        )
        for name in sorted(scores, key=lambda n: -scores[n])
    )  # fmt: skip
    return Comparison(
        level="effect_50", datasets=("d",), concepts=("d/x",), standings=standings,
        pairs=tuple(pairs(scores, apart)), agreements=(), sensitivity=(),
    )  # fmt: skip


def test_ranks_within_a_class_are_those_of_its_methods_alone() -> None:
    """a and c have labels, b and d text: c is third of all, and second of its class."""
    found = compared(SCORES, {"ab", "ac", "ad", "bc", "bd", "cd"})
    own = ranks_within(found, {"a": "labels", "b": "text", "c": "labels", "d": "text"})
    assert list(own) == ["text", "labels"]  # the least supervised first
    shown = {c: [(s.method, s.rank_low, s.rank_high) for s in part] for c, part in own.items()}
    assert shown == {"text": [("b", 1, 1), ("d", 2, 2)], "labels": [("a", 1, 1), ("c", 2, 2)]}


def test_a_class_is_tested_for_its_own_pairs_alone() -> None:
    """Of six pairs none differs after Holm; of the one pair of a class it does."""
    found = compared(SCORES, set())
    raw = tuple(
        p.model_copy(update={"p": 0.02, "p_holm": 0.12}) if (p.a, p.b) == ("a", "c") else p
        for p in found.pairs
    )
    found = found.model_copy(update={"pairs": raw})
    own = ranks_within(found, {"a": "labels", "b": "text", "c": "labels", "d": "text"})
    assert [(s.method, s.rank_low, s.rank_high) for s in own["labels"]] == [
        ("a", 1, 1), ("c", 2, 2)
    ]  # fmt: skip
    assert {(s.rank_low, s.rank_high) for s in own["text"]} == {(1, 2)}


def test_methods_of_one_class_have_one_ranking() -> None:
    own = ranks_within(compared(SCORES, {"ad"}), dict.fromkeys(SCORES, "text"))
    assert list(own) == ["text"] and len(own["text"]) == 4
