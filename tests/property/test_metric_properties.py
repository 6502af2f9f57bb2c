"""What must hold of the metrics for any logits at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from casl_bench.core.errors import InputError
from casl_bench.core.registry import discover
from casl_bench.metrics import edit_success as success
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import epr_raw, epr_std
from casl_bench.metrics.intervals import evaluate
from casl_bench.metrics.metric import METRICS
from casl_bench.metrics.score_table import ScoreTable

discover("casl_bench.metrics", METRICS)
few = settings(max_examples=30)

# Logits from a classifier: moderate, in steps that keep sums of changes well above rounding.
LOGIT = st.integers(-2000, 2000).map(lambda i: i / 100)


@st.composite
def cases(draw: st.DrawFn, min_images: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    shape = (draw(st.integers(min_images, 12)), draw(st.integers(2, 6)))
    base = draw(arrays(np.float64, shape, elements=LOGIT))
    edit = draw(arrays(np.float64, shape, elements=LOGIT))
    return base, edit, draw(st.integers(0, shape[1] - 1))


Case = tuple[np.ndarray, np.ndarray, int]


@given(cases())
@few
def test_epr_is_the_plain_computation(case: Case) -> None:
    base, edit, target = case
    n, attributes = base.shape
    moved = [
        sum(abs(float(edit[i, j]) - float(base[i, j])) for i in range(n)) / n
        for j in range(attributes)
    ]
    others = [m for j, m in enumerate(moved) if j != target]
    plain = moved[target] / (sum(others) / len(others) + 1e-8)
    assert epr_raw(base, edit, target) == pytest.approx(plain, rel=1e-9)


@given(cases(), st.randoms(use_true_random=False))
@few
def test_epr_ignores_the_order_of_images_and_of_other_attributes(case: Case, random: Any) -> None:
    base, edit, target = case
    rows, columns = list(range(len(base))), list(range(base.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    moved_target = columns.index(target)
    shuffled = epr_raw(base[rows][:, columns], edit[rows][:, columns], moved_target)
    assert shuffled == pytest.approx(epr_raw(base, edit, target), rel=1e-9)


@given(cases(), st.integers(2, 4))
@few
def test_epr_of_images_repeated_is_the_same(case: Case, times: int) -> None:
    base, edit, target = case
    repeated = epr_raw(np.tile(base, (times, 1)), np.tile(edit, (times, 1)), target)
    assert repeated == pytest.approx(epr_raw(base, edit, target), rel=1e-9)


@given(cases())
@few
def test_epr_is_blind_to_direction_and_zero_without_a_change(case: Case) -> None:
    base, edit, target = case
    assert epr_raw(base, edit, target) == epr_raw(edit, base, target) >= 0
    assert epr_raw(base, base, target) == 0


@given(cases(), st.floats(0.01, 100))
@few
def test_raw_epr_follows_one_logits_scale_and_the_standardised_does_not(
    case: Case, factor: float
) -> None:
    base, edit, target = case
    spread = np.linspace(0.5, 2, base.shape[1])
    scale = np.ones(base.shape[1])
    scale[target] = factor
    assert epr_raw(base * scale, edit * scale, target) == pytest.approx(
        factor * epr_raw(base, edit, target), rel=1e-9
    )
    scale = np.geomspace(factor, 1, base.shape[1])
    assert epr_std(base * scale, edit * scale, target, spread * scale) == pytest.approx(
        epr_std(base, edit, target, spread), rel=1e-6
    )


@given(cases(), st.floats(0.01, 100))
@few
def test_changes_in_sd_do_not_depend_on_the_logits_scale(case: Case, factor: float) -> None:
    base, edit, target = case
    spread = np.linspace(0.5, 2, base.shape[1])
    a = success.drift(base, edit, spread)
    b = success.drift(base * factor, edit * factor, spread * factor)
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    assert success.mean_collateral(
        base * factor, edit * factor, target, spread * factor
    ) == pytest.approx(success.mean_collateral(base, edit, target, spread), rel=1e-9)


@given(cases())
@few
def test_the_opposite_request_negates_the_change(case: Case) -> None:
    base, edit, target = case
    b, e = base[:, target], edit[:, target]
    on, off = (success.signed_target_change(b, e, 2.0, sign) for sign in (1, -1))
    assert on == -off
    still = float((b == e).mean())
    ways = success.wrong_way_rate(b, e, 1) + success.wrong_way_rate(b, e, -1)
    assert ways == pytest.approx(1 - still)


@given(cases())
@few
def test_flip_rate_is_the_plain_count(case: Case) -> None:
    base, edit, target = case
    for sign in (1, -1):
        pairs = [
            (sign * b, sign * e) for b, e in zip(base[:, target], edit[:, target], strict=True)
        ]
        eligible = [e for b, e in pairs if b <= 0]
        rate = success.flip_rate(base[:, target], edit[:, target], sign)
        if not eligible:
            assert rate is None
        else:
            assert rate == pytest.approx(sum(e > 0 for e in eligible) / len(eligible))


@given(cases(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
@few
def test_one_bad_number_anywhere_is_refused(case: Case, bad: float, data: st.DataObject) -> None:
    base, edit, target = case
    place = data.draw(st.integers(0, base.size - 1))
    broken = base.copy()
    broken.flat[place] = bad
    for arguments in ((broken, edit), (edit, broken)):
        with pytest.raises(InputError):
            epr_raw(*arguments, target)
        with pytest.raises(InputError):
            success.drift(*arguments, np.ones(base.shape[1]))
        with pytest.raises(InputError):
            EditScores(arguments[0], arguments[1], edit, target, 1, np.ones(base.shape[1]))


@given(cases(), st.sampled_from([1, -1]), st.integers(0, 2**63))
@few
def test_every_metric_gives_a_bounded_finite_number_or_a_reason(
    case: Case, sign: int, seed: int
) -> None:
    base, edit, target = case
    n, attributes = base.shape
    share = np.linspace(0, 1, n)
    scores = EditScores(base, base, edit, target, sign, np.ones(attributes), share, share, share)
    for name in METRICS.names():
        metric = METRICS.create(name)
        estimate = evaluate(metric, scores, seed, resamples=50)
        if estimate.value is None:
            assert estimate.reason and estimate.low is None and estimate.high is None
            continue
        assert estimate.reason is None and np.isfinite(estimate.value)
        low, high = metric.info.bounds
        assert (low is None or estimate.value >= low) and (high is None or estimate.value <= high)
        if estimate.low is not None and estimate.high is not None:
            assert estimate.low < estimate.high and estimate.n >= 2
        else:
            assert estimate.low is None and estimate.high is None


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/").filter(str.isprintable),
    min_size=1,
    max_size=8,
)


@given(
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    st.lists(NAMES, min_size=1, max_size=3, unique=True),
    st.lists(NAMES, min_size=1, max_size=2, unique=True),
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False).filter(bool), max_size=3, unique=True),
    st.booleans(),
    st.data(),
)
@few
def test_any_table_of_scores_comes_back_from_its_file(
    ids: list[str],
    attributes: list[str],
    classifiers: list[str],
    strengths: list[float],
    with_distances: bool,
    data: st.DataObject,
) -> None:
    n, a, k, s = len(ids), len(attributes), len(classifiers), len(strengths)
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)

    def draw(*shape: int) -> np.ndarray:
        return data.draw(arrays(np.float64, shape, elements=number, fill=number))

    distances = {"clip_similarity": draw(s, n), "identity": draw(s, n)} if with_distances else {}
    table = ScoreTable(
        tuple(ids),
        tuple(strengths),
        tuple(attributes),
        tuple(classifiers),
        draw(k, n, a),
        draw(k, n, a),
        draw(k, s, n, a),
        **distances,
    )
    text = table.to_csv()
    assert ScoreTable.from_csv(text) == table
    assert ScoreTable.from_csv(text).to_csv() == text


@given(cases(min_images=2))
@few
def test_a_metric_from_the_file_is_the_metric_of_the_run(case: Case) -> None:
    base, edit, target = case
    n, attributes = base.shape
    names = tuple(f"a{j}" for j in range(attributes))
    ids = tuple(f"i{i}" for i in range(n))
    table = ScoreTable(
        ids, (1.0,), names, ("net",), base[None] / 3, base[None] / 7, edit[None, None]
    )
    again = ScoreTable.from_csv(table.to_csv())
    spread = np.full(attributes, 1.3)
    metric = METRICS.create("epr_raw")
    here, there = (t.at(1.0, names[target], spread) for t in (table, again))
    assert evaluate(metric, here, 0, resamples=20) == evaluate(metric, there, 0, resamples=20)


@given(cases(), st.lists(st.integers(0, 11), min_size=1, max_size=20))
@few
def test_taking_rows_is_indexing(case: Case, index: list[int]) -> None:
    base, edit, target = case
    index = [i % len(base) for i in index]
    scores = EditScores(base, base, edit, target, 1, np.ones(base.shape[1]))
    np.testing.assert_array_equal(scores.take(index).edit, edit[index])
    assert len(scores.take(index)) == len(index)
