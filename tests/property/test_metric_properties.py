"""What must hold of the metrics for any logits at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from casl_bench.core.errors import InputError
from casl_bench.core.registry import discover
from casl_bench.metrics.bootstrap import evaluate
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.edit_success import attribute_shift
from casl_bench.metrics.epr_plus import epr_plus, evaluate_epr_plus
from casl_bench.metrics.metric import METRICS, OTHERS, metric_identity
from casl_bench.results.score_table import ScoreTable
from tests.support.score_csv import to_csv

discover("casl_bench.metrics", METRICS)
few = settings(max_examples=30)
many = settings(max_examples=50)

# Logits from a classifier: moderate, in steps that keep sums of changes well above rounding.
LOGIT = st.integers(-2000, 2000).map(lambda i: i / 100)


@st.composite
def cases(draw: st.DrawFn, min_images: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    shape = (draw(st.integers(min_images, 12)), draw(st.integers(2, 6)))
    base = draw(arrays(np.float64, shape, elements=LOGIT))
    edit = draw(arrays(np.float64, shape, elements=LOGIT))
    return base, edit, draw(st.integers(0, shape[1] - 1))


Case = tuple[np.ndarray, np.ndarray, int]


@given(cases(), st.floats(0.01, 100))
@few
def test_changes_in_sd_do_not_depend_on_the_logits_scale(case: Case, factor: float) -> None:
    base, edit, target = case
    spread = np.linspace(0.5, 2, base.shape[1])
    here = EditScores(base, base, edit, target, 1, spread)
    there = EditScores(base * factor, base * factor, edit * factor, target, 1, spread * factor)
    np.testing.assert_allclose(attribute_shift(here), attribute_shift(there), rtol=1e-9, atol=1e-9)


@given(cases())
@few
def test_the_opposite_request_negates_the_change(case: Case) -> None:
    base, edit, target = case
    on, off = (
        EditScores(base, base, edit, target, sign, np.ones(base.shape[1])) for sign in (1, -1)
    )
    assert value("signed_target_change", on) == -(value("signed_target_change", off) or 0.0)
    still = float((base[:, target] == edit[:, target]).mean())
    ways = [value("wrong_way_rate", scores) or 0.0 for scores in (on, off)]
    assert sum(ways) == pytest.approx(1 - still)


# What follows holds of every registered metric of ours, or is claimed in its `info`. -----------

OURS = [
    name
    for name in METRICS.names()
    if METRICS.create(name).per_image.__module__.startswith("casl_bench.")
]

# Binary fractions: their sums are exact, so that nothing hangs on the order of images.
FRACTION = st.integers(-256, 256).map(lambda i: i / 64)
SHARE = st.integers(0, 64).map(lambda i: i / 64)


@st.composite
def scored(draw: st.DrawFn, min_images: int = 1, min_attributes: int = 2) -> EditScores:
    """Any scores with all optional columns."""
    n, a = draw(st.integers(min_images, 6)), draw(st.integers(min_attributes, 5))
    source, base, edit = draw(arrays(np.float64, (3, n, a), elements=FRACTION))
    share = draw(arrays(np.float64, (6, n), elements=SHARE))
    return EditScores(
        source,
        base,
        edit,
        draw(st.integers(0, a - 1)),
        draw(st.sampled_from([1, -1])),
        np.array(draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 4.0]), min_size=a, max_size=a))),
        clip_similarity=2 * share[0] - 1,
        perceptual=share[1],
        identity=2 * share[2] - 1,
        locality=share[3],
        factor_target=4 * share[4] - 2,
        factor_others=share[5],
        unrelated_perceptual=0.75,
        unrelated_identity=0.25,
    )


def value(name: str, scores: EditScores) -> float | None:
    return METRICS.create(name).value(scores)


def alike(a: float | None, b: float | None) -> bool:
    return a == b if a is None or b is None else a == pytest.approx(b, rel=1e-9, abs=1e-12)


def test_there_are_metrics_to_be_held_to_it() -> None:
    assert set(PLAIN) == set(OURS) == set(UNCHANGED) and not METRICS.broken


# Each metric once more: plain loops over Python floats, written from the definitions alone. -------


def moves(s: EditScores, j: int, after: str = "edit", before: str = "base") -> list[float]:
    """Changes of attribute j's logit, image by image, raw."""
    pairs = zip(getattr(s, after)[:, j].tolist(), getattr(s, before)[:, j].tolist(), strict=True)
    return [a - b for a, b in pairs]


def size(changes: list[float]) -> float:
    return fmean(abs(c) for c in changes)


def sds(s: EditScores, j: int) -> float:
    return float(s.spread[j])


def noise(s: EditScores, j: int) -> float:
    return size(moves(s, j, "base", "source"))


def plain_epr(s: EditScores, standard: bool) -> float | None:
    units = {j: sds(s, j) if standard else 1.0 for j in (*s.others, s.target)}
    others = fmean(size(moves(s, j)) / units[j] for j in s.others)
    if others <= fmean(noise(s, j) / units[j] for j in s.others):
        return None
    return size(moves(s, s.target)) / units[s.target] / (others + 1e-8)


def plain_floored(s: EditScores) -> float | None:
    others = fmean(size(moves(s, j)) for j in s.others)
    below = max(others, fmean(noise(s, j) for j in s.others))
    return size(moves(s, s.target)) / below if below else None


def over(target: float, below: float) -> float | None:
    if target == 0:
        return 0.0
    return target / below if below else None


def plain_gain(s: EditScores) -> float:
    return s.sign * fmean(moves(s, s.target)) / sds(s, s.target)


def plain_below(s: EditScores) -> float:
    others = fmean(size(moves(s, j)) / sds(s, j) for j in s.others)
    return max(others, fmean(noise(s, j) / sds(s, j) for j in s.others))


def plain_worst(s: EditScores) -> float | None:
    damage = {j: size(moves(s, j)) / sds(s, j) for j in s.others}
    worst = max(damage.values())
    floor = max(noise(s, j) / sds(s, j) for j, d in damage.items() if d == worst)
    return over(plain_gain(s), max(worst, floor))


def plain_flips(s: EditScores) -> tuple[int, int, int]:
    """Flips of others; of the target as asked; images where the latter could happen."""
    others = sum(
        (b > 0) != (e > 0)
        for j in s.others
        for b, e in zip(s.base[:, j].tolist(), s.edit[:, j].tolist(), strict=True)
    )
    target = zip(s.base[:, s.target].tolist(), s.edit[:, s.target].tolist(), strict=True)
    could = [s.sign * e > 0 for b, e in target if s.sign * b <= 0]
    return others, sum(could), len(could)


def plain_mean(column: str) -> Callable[[EditScores], float]:
    return lambda s: fmean(getattr(s, column).tolist())


def share_of(part: float, whole: float) -> float | None:
    return part / whole if whole else None


PLAIN: dict[str, Callable[[EditScores], float | None]] = {
    "epr_raw": lambda s: plain_epr(s, standard=False),
    "epr_std": lambda s: plain_epr(s, standard=True),
    "epr_floored": plain_floored,
    "epr_signed": lambda s: over(plain_gain(s), plain_below(s)),
    "worst_attribute_epr": plain_worst,
    "factor_epr": lambda s: over(
        s.sign * plain_mean("factor_target")(s), plain_mean("factor_others")(s)
    ),
    "signed_target_change": plain_gain,
    "mean_collateral": lambda s: fmean(size(moves(s, j)) / sds(s, j) for j in s.others),
    "flip_rate": lambda s: share_of(*plain_flips(s)[1:]),
    "off_target_flips_per_flip": lambda s: share_of(*plain_flips(s)[:2]),
    "wrong_way_rate": lambda s: fmean(float(s.sign * m < 0) for m in moves(s, s.target)),
    "clip_similarity": plain_mean("clip_similarity"),
    "perceptual": plain_mean("perceptual"),
    "identity": plain_mean("identity"),
    "pixel_locality": plain_mean("locality"),
    "perceptual_drift": lambda s: plain_mean("perceptual")(s) / 0.75,
    "identity_drift": lambda s: (1 - plain_mean("identity")(s)) / (1 - 0.25),
}


@given(scored())
@many
def test_every_metric_is_the_plain_computation(scores: EditScores) -> None:
    for name, plain in PLAIN.items():
        assert alike(value(name, scores), plain(scores)), name


@given(scored(), st.integers(0, 2**63))
@few
def test_every_metric_gives_a_bounded_finite_number_or_a_reason(
    scores: EditScores, seed: int
) -> None:
    for name in OURS:
        metric = METRICS.create(name)
        estimate = evaluate(metric, scores, seed, resamples=50)
        assert estimate.value == metric.value(scores), name
        if estimate.value is None:
            assert estimate.reason and estimate.low is None and estimate.high is None, name
            continue
        assert estimate.reason is None and np.isfinite(estimate.value), name
        low, high = metric.info.bounds
        assert (low is None or estimate.value >= low) and (high is None or estimate.value <= high)
        if estimate.low is not None and estimate.high is not None:
            assert estimate.low < estimate.high and estimate.n >= 2, name
        else:
            assert estimate.low is None and estimate.high is None, name


@given(scored(), st.randoms(use_true_random=False))
@many
def test_the_order_of_images_and_of_attributes_does_not_matter(
    scores: EditScores, random: Any
) -> None:
    rows, columns = (list(range(length)) for length in scores.base.shape)
    random.shuffle(rows)
    random.shuffle(columns)
    moved = replace(
        scores,
        source=scores.source[:, columns],
        base=scores.base[:, columns],
        edit=scores.edit[:, columns],
        spread=scores.spread[columns],
        target=columns.index(scores.target),
    )
    for name in OURS:
        assert alike(value(name, scores), value(name, scores.take(rows))), name
        assert alike(value(name, scores), value(name, moved)), name


@given(scored(), st.integers(2, 4))
@few
def test_images_repeated_are_the_same(scores: EditScores, times: int) -> None:
    repeated = scores.take(list(range(len(scores))) * times)
    for name in OURS:
        assert alike(value(name, scores), value(name, repeated)), name


def rescaled(scores: EditScores, column: int, factor: float) -> EditScores:
    """One attribute's logits in another unit, and its spread with them."""
    scale = np.ones(scores.base.shape[1])
    scale[column] = factor
    return replace(
        scores,
        source=scores.source * scale,
        base=scores.base * scale,
        edit=scores.edit * scale,
        spread=scores.spread * scale,
    )


@given(scored(), st.integers(-8, 8), st.data())
@many
def test_metrics_that_claim_it_ignore_the_unit_of_a_logit(
    scores: EditScores, power: int, data: st.DataObject
) -> None:
    other_unit = rescaled(scores, data.draw(st.integers(0, scores.base.shape[1] - 1)), 2.0**power)
    for name in OURS:
        if METRICS.create(name).info.scale_free:
            assert alike(value(name, scores), value(name, other_unit)), name


def test_metrics_that_do_not_claim_it_depend_on_the_unit() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(9, 4))
    scores = EditScores(base, base, base + rng.normal(size=base.shape), 0, 1, np.ones(4))
    apart = [n for n in OURS if not METRICS.create(n).info.scale_free]
    assert apart == ["epr_floored", "epr_raw"]
    for name in apart:
        for column in (0, 1):
            assert not alike(value(name, scores), value(name, rescaled(scores, column, 8.0)))


# Value of an edit that changes nothing; None where a metric says nothing of it.
UNCHANGED: dict[str, float | None] = {
    "epr_raw": None,
    "epr_std": None,
    "epr_floored": 0.0,
    "epr_signed": 0.0,
    "worst_attribute_epr": 0.0,
    "factor_epr": 0.0,
    "signed_target_change": 0.0,
    "mean_collateral": 0.0,
    "flip_rate": 0.0,
    "off_target_flips_per_flip": None,
    "wrong_way_rate": 0.0,
    "clip_similarity": 0.0,
    "perceptual": 0.0,
    "identity": 1.0,
    "pixel_locality": 0.125,
    "perceptual_drift": 0.0,
    "identity_drift": 0.0,
}


@given(scored())
@few
def test_an_edit_that_changes_nothing_gains_nothing(scores: EditScores) -> None:
    none, n = np.zeros(len(scores)), len(scores)
    still = replace(
        scores,
        edit=scores.base,
        clip_similarity=none,
        perceptual=none,
        identity=np.ones(n),
        locality=np.full(n, 0.125),
        factor_target=none,
        factor_others=none,
    )
    for name, expected in UNCHANGED.items():
        found = value(name, still)
        exempt = (
            name == "flip_rate" and not (scores.sign * scores.base[:, scores.target] <= 0).any()
        ) or (name == "epr_floored" and (still.source == still.base)[:, still.others].all())
        assert found is None if exempt else found == expected, name


@given(scored(min_attributes=1), st.data())
@few
def test_a_single_attribute_is_undefined_where_others_are_needed(
    scores: EditScores, data: st.DataObject
) -> None:
    only = data.draw(st.integers(0, scores.base.shape[1] - 1))
    alone = replace(
        scores,
        source=scores.source[:, [only]],
        base=scores.base[:, [only]],
        edit=scores.edit[:, [only]],
        spread=scores.spread[[only]],
        target=0,
    )
    for name in OURS:
        metric = METRICS.create(name)
        estimate = evaluate(metric, alone, 0, resamples=20)
        if OTHERS in metric.info.depends_on:
            assert estimate.value is None and "no attribute but the target" in str(estimate.reason)
        else:
            assert alike(estimate.value, PLAIN[name](alone)), name


@given(scored())
@few
def test_one_image_has_a_number_and_no_interval(scores: EditScores) -> None:
    one = scores.take([0])
    for name in OURS:
        estimate = evaluate(METRICS.create(name), one, 0, resamples=20)
        assert alike(estimate.value, PLAIN[name](one)), name
        assert estimate.low is None and estimate.high is None, name


@given(scored(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
@few
def test_no_number_that_is_not_finite_reaches_a_metric(
    scores: EditScores, bad: float, data: st.DataObject
) -> None:
    for field in fields(EditScores):
        if field.name in ("target", "sign"):
            continue
        good = np.asarray(getattr(scores, field.name))
        broken = good.copy()
        broken.flat[data.draw(st.integers(0, good.size - 1))] = bad
        with pytest.raises(InputError):
            replace(scores, **{field.name: broken if good.ndim else float(broken)})


@given(scored(min_images=2), st.lists(st.integers(0, 5), min_size=1, max_size=12))
@many
def test_weights_of_columns_stand_for_images_drawn(scores: EditScores, index: list[int]) -> None:
    """What resampling relies on: `combine` of weighted columns is the metric of drawn images."""
    index = [i % len(scores) for i in index]
    weights = np.bincount(index, minlength=len(scores)) / len(index)
    drawn = scores.take(index)
    for name in OURS:
        metric = METRICS.create(name)
        if metric.undefined(scores) is None and metric.undefined(drawn) is None:
            combined = float(metric.combine(weights @ metric.per_image(scores)))
            assert alike(combined if np.isfinite(combined) else None, metric.value(drawn)), name


@given(scored())
@few
def test_the_inverted_edit_is_the_negative_although_the_papers_number_ties(
    scores: EditScores,
) -> None:
    assert scores.factor_target is not None
    inverted = replace(
        scores, edit=2 * scores.base - scores.edit, factor_target=-scores.factor_target
    )
    opposite = replace(scores, sign=-scores.sign)
    for name in ("epr_signed", "worst_attribute_epr", "factor_epr", "signed_target_change"):
        here = value(name, scores)
        for other in (inverted, opposite):
            assert alike(None if here is None else -here, value(name, other)), name
    for name in ("epr_raw", "epr_std", "epr_floored"):
        assert alike(value(name, scores), value(name, inverted)), name


@given(scored())
@few
def test_the_worst_attribute_bounds_the_mean_where_inversion_is_exact(scores: EditScores) -> None:
    exact = replace(scores, source=scores.base)
    worst, mean = value("worst_attribute_epr", exact), value("epr_signed", exact)
    if worst is None or mean is None:
        assert worst is None and mean is None
    else:
        assert abs(worst) <= abs(mean) * (1 + 1e-9)


# EPR+: the headline. ------------------------------------------------------------------------------


@st.composite
def against_random(draw: st.DrawFn) -> tuple[EditScores, list[EditScores]]:
    scores = draw(scored())
    k = draw(st.integers(1, 3))
    edits = draw(arrays(np.float64, (k, *scores.base.shape), elements=FRACTION))
    return scores, [replace(scores, edit=edit) for edit in edits]


def plain_epr_plus(scores: EditScores, random: list[EditScores]) -> float | None:
    product = 1.0
    for r in random:
        unsigned = size(moves(r, r.target)) / sds(r, r.target)
        ratio = over(unsigned, plain_below(r))
        if not ratio:
            return None
        product *= ratio
    signed = over(plain_gain(scores), plain_below(scores))
    return None if signed is None else signed / product ** (1 / len(random))


@given(against_random())
@many
def test_epr_plus_is_the_plain_computation(case: tuple[EditScores, list[EditScores]]) -> None:
    assert alike(epr_plus(*case), plain_epr_plus(*case))


@given(against_random(), st.integers(-8, 8), st.randoms(use_true_random=False))
@few
def test_epr_plus_ignores_units_and_the_order_of_images_and_draws(
    case: tuple[EditScores, list[EditScores]], power: int, random: Any
) -> None:
    scores, draws = case
    expected = epr_plus(scores, draws)
    rows = list(range(len(scores)))
    random.shuffle(rows)
    assert alike(expected, epr_plus(scores.take(rows), [d.take(rows) for d in draws]))
    assert alike(expected, epr_plus(scores, draws[::-1]))
    for column in range(scores.base.shape[1]):
        edit, *others = (rescaled(s, column, 2.0**power) for s in (scores, *draws))
        assert alike(expected, epr_plus(edit, others))


@given(against_random(), st.integers(0, 2**63))
@few
def test_epr_plus_is_a_finite_number_or_a_reason(
    case: tuple[EditScores, list[EditScores]], seed: int
) -> None:
    estimate = evaluate_epr_plus(*case, seed, resamples=50)
    assert alike(estimate.value, epr_plus(*case)) and estimate.n == len(case[0])
    assert (estimate.value is None) == (estimate.reason is not None)
    if estimate.low is None or estimate.high is None:
        assert estimate.low is estimate.high is None
    else:
        assert estimate.low < estimate.high and estimate.n >= 2
    single = evaluate_epr_plus(case[0].take([0]), [r.take([0]) for r in case[1]], seed)
    assert single.low is None and single.high is None


@given(against_random())
@few
def test_the_inverted_edit_has_the_negative_epr_plus(
    case: tuple[EditScores, list[EditScores]],
) -> None:
    scores, draws = case
    here = epr_plus(scores, draws)
    inverted = replace(scores, edit=2 * scores.base - scores.edit)
    assert alike(None if here is None else -here, epr_plus(inverted, draws))


@given(st.lists(st.text(max_size=4), unique=True, max_size=5), st.randoms(use_true_random=False))
@few
def test_identity_of_a_metric_goes_by_the_set_of_others(names: list[str], random: Any) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    for name in OURS:
        info = METRICS.create(name).info
        assert metric_identity(info, names) == metric_identity(info, shuffled)
        further = metric_identity(info, [*names, "another one"])
        assert (further != metric_identity(info, names)) == (OTHERS in info.depends_on)


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
    with_extra: bool,
    data: st.DataObject,
) -> None:
    n, a, k, s = len(ids), len(attributes), len(classifiers), len(strengths)
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)

    def draw(*shape: int) -> np.ndarray:
        return data.draw(arrays(np.float64, shape, elements=number, fill=number))

    kept = ("clip_similarity", "identity", "locality", "factor_others") if with_extra else ()
    table = ScoreTable(
        tuple(ids),
        tuple(strengths),
        tuple(attributes),
        tuple(classifiers),
        draw(k, n, a),
        draw(k, n, a),
        draw(k, s, n, a),
        **{name: draw(s, n) for name in kept},
    )
    assert ScoreTable.from_npz(table.to_npz()) == table
    assert ScoreTable.from_csv(to_csv(table)) == table


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
    again = ScoreTable.from_npz(table.to_npz())
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
