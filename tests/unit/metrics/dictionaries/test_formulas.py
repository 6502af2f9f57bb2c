"""The formulas by hand, at their edges, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.dictionaries import SAE_METRICS, acting, coding, mean_estimate, reading
from casl_bench.metrics.dictionaries.acting import Edits
from casl_bench.metrics.dictionaries.reading import Match

RNG = np.random.default_rng(0)


def test_every_metric_says_what_it_is() -> None:
    for name, info in SAE_METRICS.items():
        assert info.name == name and info.source and info.title
        assert info.bounds[0] < info.bounds[1]
        if info.best is not None and info.better == "higher":
            assert info.best == info.bounds[1]
        if info.better is None:
            assert info.best is None


def test_explained_variance_by_hand() -> None:
    h = RNG.normal(size=(10, 4, 3))
    assert coding.explained_variance(h, h, 0).value == 1
    nothing = coding.explained_variance(h, np.broadcast_to(h.mean((0, 1)), h.shape), 0)
    assert nothing.value == pytest.approx(0)
    some = coding.explained_variance(h, h + 0.1, 0)
    expected = 1 - 0.01 * h.size / ((h - h.mean((0, 1))) ** 2).sum()
    assert some.value == pytest.approx(expected)
    assert some.low is not None and some.high is not None
    assert some.low < some.value < some.high


def test_the_eps_error_is_relative_and_grows_with_the_damage() -> None:
    eps = RNG.normal(size=(6, 3, 4, 4))
    errors = [coding.eps_error(eps, eps * (1 - d), 0).value for d in (0, 0.1, 0.5, 1)]
    assert errors == pytest.approx([0, 0.01, 0.25, 1])
    assert coding.eps_error(eps * 0, eps, 0).value is None


def test_dead_and_dense_are_shares_of_their_own() -> None:
    frequency = np.array([0, 0, 0.05, 0.5])
    assert coding.dead_share(frequency) == 0.5 and coding.dense_share(frequency) == 0.5
    assert coding.dense_share(np.zeros(3)) == 0


def test_stability_does_not_depend_on_order_and_is_low_for_strangers() -> None:
    W = RNG.normal(size=(20, 64))
    assert coding.matched_cosine(W, W[::-1]) == pytest.approx(1)
    assert coding.matched_cosine(W, -W, signed=True) == pytest.approx(1)
    stranger = coding.matched_cosine(W, RNG.normal(size=(20, 64)))
    assert stranger < 0.5
    half = np.concatenate([W[:10], RNG.normal(size=(10, 64))])
    assert stranger < coding.matched_cosine(W, half) < 1


def test_a_latent_that_moves_at_every_flip_scores_half() -> None:
    change = np.ones((2, 6, 1))
    match = Match(np.array([0, 0]), np.array([1.0, 1.0]))
    assert reading.pair_score(change, match, 0, 0).value == pytest.approx(0.5)
    change[1] = 0
    assert reading.pair_score(change, match, 0, 0).value == 1
    assert reading.pair_score(-change, match, 0, 0).value == 0
    assert reading.pair_direction(-change, match, 0, 0).value == 0
    assert reading.pair_direction(change * 0, match, 0, 0).value == 0.5
    assert reading.pair_score(change * 0, match, 0, 0).value == 0
    assert reading.pair_share(change * 0, match, 0, 0).value == 0


def test_the_match_has_the_sign_of_its_contrast() -> None:
    match = Match.of(np.array([[0.1, -2.0], [0.0, 0.0]]))
    assert match.latent.tolist() == [1, 0] and match.sign.tolist() == [-1, 1]


def test_contrast_needs_both_classes() -> None:
    with pytest.raises(InputError, match="both classes"):
        reading.contrast(np.ones((3, 2)), np.array([True] * 3))
    constant = reading.contrast(np.ones((4, 2)), np.array([True, True, False, False]))
    assert (constant == 0).all()


def test_absorption_by_hand() -> None:
    directions = np.array([[1.0, 0.0], [1.0, 0.0]])
    moved = np.tile([1.0, 0.0], (4, 1))
    match = Match(np.array([0]), np.array([1.0]))
    change = np.array([[1.0, 0.0]] * 4)
    assert reading.absorption(change, directions, moved, match, 0, 0).value == 0
    change[3] = [0.0, 1.0]  # another latent carries the last flip
    assert reading.absorption(change, directions, moved, match, 0, 0).value == 0.25
    assert reading.absorption(-change, directions, moved, match, 0, 0).value == 1


def test_monosemanticity_is_one_for_alike_images_and_zero_for_any() -> None:
    similarity = np.kron(np.eye(2), np.ones((4, 4)))
    alike = np.array([[1.0] * 4 + [0.0] * 4]).T
    assert reading.monosemanticity(alike, similarity, 0).value == pytest.approx(1)
    assert reading.monosemanticity(np.ones((8, 1)), similarity, 0).value == pytest.approx(0)
    lone = np.eye(8)[:, :1]
    assert reading.monosemanticity(lone, similarity, 0).value is None


def test_localisation_by_hand() -> None:
    mask = np.tile([1.0, 0, 0, 0], (3, 1))
    assert reading.localisation(mask * 5, mask, 0).value == 1
    assert reading.localisation(np.ones((3, 4)), mask, 0).value == pytest.approx(0)
    assert reading.localisation(1 - mask, mask, 0).value == pytest.approx(-1 / 3)
    assert reading.localisation(np.ones((3, 4)), np.ones((3, 4)), 0).value is None


def test_the_area_weighs_k_on_a_log_scale() -> None:
    right = {1: np.zeros(4), 2: np.ones(4), 8: np.ones(4)}
    assert reading.area_over_k(right, 0).value == pytest.approx(1 - 0.5 / 3)
    assert reading.area_over_k({4: np.ones(4)}, 0).value == 1
    with pytest.raises(InputError):
        reading.area_over_k({}, 0)


def test_latents_needed_stops_where_accuracy_stops_rising() -> None:
    assert reading.latents_needed({1: 0.9, 2: 0.92, 4: 0.925}) == 1
    assert reading.latents_needed({1: 0.5, 2: 0.8, 4: 0.82, 8: 0.9}) == 8


def test_the_halves_are_equal_and_by_similarity() -> None:
    assert reading.halves(np.array([0.1, 0.9, 0.5, 0.7])).tolist() == [False, True, False, True]


def test_precision_is_taken_where_nine_of_ten_flip() -> None:
    target = np.array([[0.5] * 10, [2.0] * 10, [4.0] * 10])
    others = np.array([[0.1] * 10, [1.0] * 10, [4.0] * 10])
    flipped = np.array([[True] * 5 + [False] * 5, [True] * 9 + [False], [True] * 10])
    assert acting.precision_at_flips(Edits(target, others, flipped), 0).value == pytest.approx(
        2 / 3
    )
    assert acting.precision_at_flips(Edits(target, others, flipped & False), 0).value == 0
    assert acting.precision_at_flips(Edits(-target, others, flipped), 0).value == 0


def test_cause_and_isolate_are_shares() -> None:
    yes, no = np.array([True] * 4), np.array([True, True, False, False])
    assert acting.cause(yes, no, 0).value == 0.5
    base = np.ones((4, 3), bool)
    edited = base.copy()
    edited[0] = False
    assert acting.isolate(base, edited, 0).value == 0.75


def test_a_step_off_the_manifold_costs() -> None:
    rows = RNG.normal(size=(500, 5)) * np.array([3.0, 1, 1, 1, 0.1])
    mean, covariance = rows.mean(0), np.cov(rows.T)
    real = acting.mahalanobis(rows, mean, covariance)
    along = acting.mahalanobis(rows + np.eye(5)[0], mean, covariance)
    across = acting.mahalanobis(rows + np.eye(5)[4], mean, covariance)
    assert acting.off_manifold(real, real, 0).value == pytest.approx(1)
    costs = [acting.off_manifold(x, real, 0).value or 0 for x in (real, along, across)]
    assert costs == sorted(costs) and costs[2] > 1.5


def test_an_interval_covers() -> None:
    truth, hits = 0.3, 0
    for seed in range(200):
        values = (np.random.default_rng(seed).random(40) < truth).astype(float)
        found = mean_estimate(values, seed)
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert hits > 180
