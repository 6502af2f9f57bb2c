"""Intervals: seeded, absent where there is nothing to resample."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import (
    bootstrap_interval,
    evaluate,
    evaluate_ratio,
    percentile_interval,
    resampling_weights,
    wilson_interval,
)
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.edit_success import FLIP_RATE, WRONG_WAY_RATE
from casl_bench.metrics.epr import EPR_RAW


def make(n: int = 40, seed: int = 0, change: float = 1.0) -> EditScores:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 5))
    edit = base + 0.2 * rng.normal(size=base.shape)
    edit[:, 0] += change
    return EditScores(base, base, edit, 0, 1, np.ones(5))


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    scores = make()
    first = evaluate(EPR_RAW, scores, 1)
    resampling_weights.cache_clear()
    assert evaluate(EPR_RAW, scores, 1) == first
    assert evaluate(EPR_RAW, scores, 2).low != first.low
    assert first.low is not None and first.high is not None and first.value is not None
    assert first.low < first.value < first.high


def test_the_vectorised_bootstrap_equals_a_plain_one() -> None:
    """Every resample's ratio, recomputed image by image from the drawn counts."""
    scores = make(n=12)
    weights = resampling_weights(12, 50, 3)
    plain = []
    for row in weights:
        drawn = np.repeat(np.arange(12), np.rint(row * 12).astype(int))
        assert len(drawn) == 12
        change = np.abs(scores.edit[drawn] - scores.base[drawn])
        plain.append(change[:, 0].mean() / (change[:, 1:].mean() + 1e-8))
    np.testing.assert_allclose(EPR_RAW.combine(weights @ EPR_RAW.per_image(scores)), plain)


def test_one_image_has_a_value_and_no_interval() -> None:
    one = evaluate(EPR_RAW, make(n=1), 0)
    assert one.value is not None and one.n == 1
    assert one.low is None and one.high is None


def test_no_image_and_undefined_metrics_say_why() -> None:
    assert evaluate(EPR_RAW, make().take([]), 0).reason == "no image"
    scores = make()
    unedited = evaluate(EPR_RAW, replace(scores, edit=scores.base), 0)
    assert unedited.value is None and "noise floor" in str(unedited.reason)


def test_an_interval_never_has_zero_width() -> None:
    flipped = make(change=50)
    rate = evaluate(FLIP_RATE, flipped, 0)
    assert rate.value == 1 and rate.high == 1
    assert rate.low is not None and 0.7 < rate.low < 1  # Wilson's, over the eligible images
    constant = replace(flipped, edit=flipped.base + 1)
    assert evaluate(EPR_RAW, constant, 0).low is None
    assert evaluate(WRONG_WAY_RATE, constant, 0).low == 0


def test_two_metrics_of_one_cell_see_the_same_resamples() -> None:
    assert resampling_weights(7, 10, 5) is resampling_weights(7, 10, 5)
    with pytest.raises(ValueError, match="read-only"):
        resampling_weights(7, 10, 5)[0, 0] = 1


def test_ratio_over_a_reference_is_resampled_jointly() -> None:
    scores, weak = make(change=3), make(change=0)
    ratio = evaluate_ratio(EPR_RAW, scores, weak, 0)
    a, b = EPR_RAW.value(scores), EPR_RAW.value(weak)
    assert a is not None and b is not None and ratio.value == pytest.approx(a / b)
    same = evaluate_ratio(EPR_RAW, scores, scores, 0)
    assert same.value == pytest.approx(1) and same.low is None  # exactly itself: no spread


def test_ratio_is_undefined_where_either_side_is() -> None:
    scores = make()
    still = replace(scores, edit=scores.base)
    assert "reference" in str(evaluate_ratio(EPR_RAW, scores, still, 0).reason)
    assert evaluate_ratio(EPR_RAW, still, scores, 0).value is None
    silent = replace(scores, edit=np.where(np.arange(5) == 0, scores.base, scores.edit))
    assert evaluate_ratio(EPR_RAW, scores, silent, 0).reason == "the reference's value is 0"
    with pytest.raises(InputError, match="same images"):
        evaluate_ratio(EPR_RAW, scores, make(n=3), 0)


def test_general_bootstrap_is_absent_below_two_rows_and_where_nothing_varies() -> None:
    assert bootstrap_interval(lambda i: float(i.mean()), 1, 0) is None
    assert bootstrap_interval(lambda i: 1.0, 9, 0) is None
    low, high = bootstrap_interval(lambda i: float(i.mean()), 9, 0) or (0, 0)
    assert 0 < low < 4 < high < 8


def test_a_few_undefined_resamples_are_dropped_and_many_leave_no_interval() -> None:
    values = np.linspace(0, 1, 1000)
    few, many = values.copy(), values.copy()
    few[:20], many[:100] = np.nan, np.nan
    assert percentile_interval(few) is not None
    assert percentile_interval(many) is None


def test_tails_are_expanded_where_few_units_were_resampled() -> None:
    # t(9) has 2.5 % below -2.262; times sqrt(10 / 9), -2.384, of which a normal has 0.86 % below.
    values = np.linspace(0, 1, 100_001)
    low, high = percentile_interval(values, 10) or (0, 0)
    assert low == pytest.approx(0.00855, abs=5e-5) and high == pytest.approx(1 - low)
    assert percentile_interval(values, 10**7) == pytest.approx((0.025, 0.975), abs=1e-4)
    with pytest.raises(InputError, match="one unit"):
        percentile_interval(values, 1)


def test_wilson_interval_against_published_figures() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20 by the score method.
    low, high = wilson_interval(81, 263) or (0, 0)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson_interval(0, 20) or (1, 1)
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)
    assert wilson_interval(0, 0) is None
    with pytest.raises(InputError):
        wilson_interval(3, 2)


def test_a_thousand_resamples_of_many_images_are_quick() -> None:
    scores = make(n=256)
    evaluate(EPR_RAW, scores, 0)
    start = time.perf_counter()
    for _ in range(20):
        evaluate(EPR_RAW, scores, 0)
    assert (time.perf_counter() - start) / 20 < 0.05
