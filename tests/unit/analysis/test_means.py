"""Means over concepts and differences of methods: by hand, at the edges, in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from casl_bench.analysis.comparison import aggregates
from casl_bench.analysis.significance import holm, paired_differences
from casl_bench.analysis.uncertainty import ResampledScores
from casl_bench.core.errors import InputError

Draw = Callable[..., ResampledScores]
RNG = np.random.default_rng(0)
NOISY = RNG.normal(size=(3, 5, 40)) + RNG.normal(size=(3, 5, 1)) + RNG.normal(size=(1, 1, 40))


def test_concepts_without_image_noise_give_students_interval(draw: Draw) -> None:
    """Scores 1, 2, 3, 4 on every image: 2.5 ± t(3) sqrt(S² / 4), S² = 5 / 3."""
    draws = draw(np.tile(np.array([1.0, 2, 3, 4])[:, None], (1, 1, 6)))
    (mean,) = aggregates(draws)
    assert mean.low is not None and mean.high is not None
    half = t.ppf(0.975, 3) * np.sqrt(5 / 3 / 4)
    assert mean.value == 2.5
    assert (mean.low, mean.high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))
    (fixed,) = aggregates(draws, generalise=False)
    assert fixed.low is None and fixed.reason == "nothing varies"


def test_images_that_all_concepts_share_alike_do_not_average_out(draw: Draw) -> None:
    """Each concept is the same mean of images: as uncertain as one of them, by images alone."""
    values = np.linspace(-1, 1, 30)
    draws = draw(np.tile(values, (1, 8, 1)), resamples=20_000)
    error = values.std(ddof=1) / np.sqrt(30)
    for generalise in (True, False):
        (mean,) = aggregates(draws, generalise=generalise)
        assert mean.high == pytest.approx(t.ppf(0.975, 29) * error, rel=0.02)


def test_both_sources_add_up(draw: Draw) -> None:
    """Concept c's score is c plus the mean of shared images: S²/C and the images' variance."""
    values = np.linspace(-3, 3, 30)
    numbers = np.arange(5.0)[:, None] + values
    (mean,) = aggregates(draw(numbers[None], resamples=20_000))
    concepts, shared = 2.5 / 5, values.var(ddof=1) / 30
    df = (concepts + shared) ** 2 / (concepts**2 / 4 + shared**2 / 29)
    assert mean.high == pytest.approx(2 + t.ppf(0.975, df) * np.sqrt(concepts + shared), rel=0.02)


def test_data_sets_are_strata(draw: Draw) -> None:
    """What lies between data sets is no noise; each weighs as its concepts."""
    numbers = np.tile(np.array([1.0, 3, 100, 102, 104, 106])[:, None], (1, 1, 4))
    draws = draw(numbers, ["a", "a", "b", "b"], list("aabbbb"))
    (mean,) = aggregates(draws)
    assert mean.value == pytest.approx(416 / 6) and mean.high is not None
    variance = (2 / 6) ** 2 * 2 / 2 + (4 / 6) ** 2 * (20 / 3) / 4
    assert mean.high - mean.value == pytest.approx(t.ppf(0.975, 4) * np.sqrt(variance))


def test_an_interval_for_other_concepts_is_never_the_narrower_one(draw: Draw) -> None:
    for seed in range(20):
        numbers = np.random.default_rng(seed).normal(size=(1, 3, 30))
        draws = draw(numbers)
        (wide,), (narrow,) = aggregates(draws), aggregates(draws, generalise=False)
        assert wide.low is not None and narrow.low is not None and wide.low <= narrow.low


def test_no_interval_without_something_to_draw_again(draw: Draw) -> None:
    one_concept = draw(NOISY[:, :1])
    assert aggregates(one_concept)[0].reason == "d has but one concept"
    assert aggregates(one_concept, generalise=False)[0].low is not None
    assert [d.p for d in paired_differences(one_concept)] == [None] * 3
    one_image = draw(NOISY[..., :1])
    for generalise in (True, False):
        mean = aggregates(one_image, generalise=generalise)[0]
        assert (mean.low, mean.high, mean.reason) == (None, None, "d has fewer than two images")
        assert mean.value == pytest.approx(NOISY[0, :, 0].mean())
    lone = draw(NOISY, ["a", "b"] * 20, list("aabbb"))
    assert aggregates(lone)[0].low is not None
    lone = draw(NOISY, ["a", "b"] * 20, list("abbbb"))
    assert aggregates(lone)[0].reason == "a has but one concept"


def test_one_method_has_a_mean_and_no_pair(draw: Draw) -> None:
    draws = draw(NOISY[:1])
    assert len(aggregates(draws)) == 1
    assert paired_differences(draws) == ()


def test_a_few_undefined_resamples_are_dropped_and_many_leave_no_interval(draw: Draw) -> None:
    draws = draw(NOISY, resamples=100)
    few, many = draws.resampled.copy(), draws.resampled.copy()
    few[:3, 0, 0], many[:3, 0, 0], many[3:6, 0, 1] = np.nan, np.inf, np.nan
    assert aggregates(replace(draws, resampled=few))[0].low is not None
    damaged = replace(draws, resampled=many)
    assert "undefined" in str(aggregates(damaged)[0].reason)
    assert aggregates(damaged)[1].low is not None
    assert [d.p is None for d in paired_differences(damaged)] == [True, True, False]


def test_a_copy_does_not_differ_from_itself(draw: Draw) -> None:
    (pair,) = paired_differences(draw(NOISY[[0, 0]]))
    found = pair.difference
    assert (found.value, found.low, pair.p, pair.p_holm) == (0, None, None, None)


def test_a_difference_cancels_what_two_methods_share(draw: Draw) -> None:
    """Concepts and images move both methods by far more than they differ."""
    rng = np.random.default_rng(1)
    common = 10 * rng.normal(size=(1, 6, 1)) + 10 * rng.normal(size=(1, 1, 40))
    own = np.array([0.5, 0])[:, None, None] + 0.1 * rng.normal(size=(2, 6, 40))
    draws = draw(common + own)
    (pair,) = paired_differences(draws)
    assert pair.p is not None and pair.p < 1e-4
    assert pair.difference.low is not None and pair.difference.low > 0.3
    first, second = aggregates(draws)
    assert first.low is not None and first.low < second.value


def test_p_agrees_with_the_interval(draw: Draw) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        numbers = rng.normal(size=(2, 5, 30)) + rng.normal(size=(2, 5, 1)) + [[[0]], [[1]]]
        (pair,) = paired_differences(draw(numbers, resamples=100))
        assert (
            pair.difference.low is not None
            and pair.difference.high is not None
            and pair.p is not None
        )
        assert (pair.p < 0.05) == (not pair.difference.low <= 0 <= pair.difference.high)


def test_a_paired_difference_by_hand(draw: Draw) -> None:
    """Without image noise it is Student's paired test."""
    a, b = np.array([1.0, 4, 2, 8]), np.array([0.0, 1, 2, 4])
    (pair,) = paired_differences(draw(np.tile(np.stack([a, b])[..., None], (1, 1, 6))))
    d = a - b
    error = d.std(ddof=1) / 2
    assert pair.difference.value == 2
    assert pair.p == pytest.approx(2 * t.sf(2 / error, 3))
    assert pair.p_holm == pair.p
    assert pair.difference.low == pytest.approx(2 - t.ppf(0.975, 3) * error)


def test_the_order_of_methods_and_concepts_changes_nothing(draw: Draw) -> None:
    names, order, turn = ["x", "y", "z"], [2, 0, 1], [3, 1, 4, 0, 2]
    plain = draw(NOISY, methods=names)
    turned = draw(NOISY[order][:, turn], methods=[names[k] for k in order])
    by_name = {a.method: a for a in aggregates(turned)}
    for mean in aggregates(plain):
        other = by_name[mean.method]
        assert (other.value, other.low, other.high) == (
            pytest.approx(mean.value),
            pytest.approx(mean.low),
            pytest.approx(mean.high),
        )
    pairs = {frozenset((d.a, d.b)): d for d in paired_differences(turned)}
    for pair in paired_differences(plain):
        other_pair = pairs[frozenset((pair.a, pair.b))]
        assert abs(other_pair.difference.value) == pytest.approx(abs(pair.difference.value))
        assert (other_pair.a == pair.a) == (other_pair.difference.value * pair.difference.value > 0)
        assert other_pair.p_holm == pytest.approx(pair.p_holm)


def test_the_same_seed_gives_the_same_numbers(draw: Draw) -> None:
    assert aggregates(draw(NOISY, seed=4)) == aggregates(draw(NOISY, seed=4))
    assert paired_differences(draw(NOISY, seed=4)) == paired_differences(draw(NOISY, seed=4))
    assert aggregates(draw(NOISY, seed=4)) != aggregates(draw(NOISY, seed=5))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.01, None, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04)]
    assert holm([]) == []
    with pytest.raises(InputError):
        holm([1.5])


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = [p for p in holm(p_values) if p is not None]
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
