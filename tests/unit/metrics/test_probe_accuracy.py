"""The probe finds what is there, finds nothing in noise, and is the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.probe import (
    ProbeData,
    RawProbe,
    majority_probe,
    pooled_features,
    probe,
    probe_top_k,
    unit_features,
)

N_TRAIN, N_TEST = 120, 80
RNG = np.random.default_rng(0)
LABELS = RNG.random(N_TRAIN + N_TEST) < 0.4
TRAIN_Y, TEST_Y = LABELS[:N_TRAIN], LABELS[N_TRAIN:]


def make(columns: int, informative: int, gap: float = 3.0, seed: int = 0) -> ProbeData:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N_TRAIN + N_TEST, columns))
    x[:, :informative] += gap * LABELS[:, None]
    return ProbeData(x[:N_TRAIN], x[N_TRAIN:])


def test_a_separable_concept_is_read_and_noise_is_not() -> None:
    found = probe(make(4, 4), TRAIN_Y, TEST_Y, 0, "top")
    assert found.accuracy > 0.95 and found.balanced_accuracy > 0.95
    assert found.low < found.accuracy < found.high or found.accuracy == 1
    assert found.selectivity is not None and found.selectivity > 0.3
    assert found.n_test == N_TEST
    noise = probe(make(4, 0), TRAIN_Y, TEST_Y, 0, "noise")
    assert noise.accuracy < 0.75 and abs(noise.selectivity or 0) < 0.2


def test_features_are_standardised_on_train_only() -> None:
    """Any shift and scale of a column, and any outlier among the test images, changes nothing."""
    data = make(3, 2, gap=1.0)
    moved = ProbeData(data.train * [1e-4, 1, 1e5] + 7, data.test * [1e-4, 1, 1e5] + 7)
    a, b = (probe(d, TRAIN_Y, TEST_Y, 0, "x") for d in (data, moved))
    assert a.accuracy == b.accuracy and a.cost == b.cost
    outlier = data.test.copy()
    outlier[0] = 1e6
    c = probe(ProbeData(data.train, outlier), TRAIN_Y, TEST_Y, 0, "x")
    assert abs(c.accuracy - a.accuracy) <= 1 / N_TEST


def test_the_same_seed_gives_the_same_result() -> None:
    data = make(20, 2, gap=1.0)
    ranking = np.arange(20)
    runs = [probe_top_k(data, ranking, TRAIN_Y, TEST_Y, 5, unit="units") for _ in range(2)]
    assert runs[0] == runs[1]


def test_top_k_beats_random_k_and_leaves_out_impossible_ks() -> None:
    data = make(40, 2)
    results = probe_top_k(data, np.arange(40), TRAIN_Y, TEST_Y, 0, unit="latents", ks=(1, 2, 64))
    assert [(r.features, r.k) for r in results] == [
        ("top_latents", 1),
        ("random_latents", 1),
        ("top_latents", 2),
        ("random_latents", 2),
    ]
    by_name = {(r.features, r.k): r for r in results}
    for k in (1, 2):
        top, random = by_name["top_latents", k], by_name["random_latents", k]
        assert top.accuracy > random.accuracy + 0.2
        assert random.low <= random.accuracy <= random.high


def test_ranking_decides_which_features_are_read() -> None:
    data = make(10, 1)
    last = probe_top_k(data, np.arange(10)[::-1], TRAIN_Y, TEST_Y, 0, unit="units", ks=(1,))[0]
    assert last.accuracy < 0.75
    with pytest.raises(InputError, match="order all 10"):
        probe_top_k(data, np.zeros(10, int), TRAIN_Y, TEST_Y, 0, unit="units")


def test_wide_features_give_the_decisions_of_the_full_matrix() -> None:
    """The rotation into as many columns as images changes nothing but time."""
    data = make(400, 6, gap=1.0)
    assert RawProbe(data)(TRAIN_Y, TEST_Y, 0).accuracy == pytest.approx(
        probe(data, TRAIN_Y, TEST_Y, 0, "raw_h").accuracy, abs=1 / N_TEST
    )


def test_a_constant_feature_does_no_harm() -> None:
    data = make(2, 1)
    constant = ProbeData(
        np.hstack([data.train, np.ones((N_TRAIN, 1))]), np.hstack([data.test, np.ones((N_TEST, 1))])
    )
    assert probe(constant, TRAIN_Y, TEST_Y, 0, "x").accuracy > 0.9


def test_majority_is_the_training_images_majority() -> None:
    chance = majority_probe(make(1, 0), TRAIN_Y, TEST_Y)
    assert chance.accuracy == pytest.approx(1 - TEST_Y.mean())
    assert chance.balanced_accuracy == 0.5 and chance.selectivity is None


def test_features_of_a_code() -> None:
    z = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    np.testing.assert_allclose(pooled_features(z)[0], [1.5, 5.5, 9.5])
    units = unit_features(z)
    assert units.shape == (2, 12) and units[1, 1 * 4 + 2] == z[1, 1, 1, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: probe(make(2, 1), TRAIN_Y[:-1], TEST_Y, 0, "x"),
        lambda: probe(make(2, 1), np.zeros(N_TRAIN, bool), TEST_Y, 0, "x"),
        lambda: probe(make(2, 1), TRAIN_Y, np.ones(N_TEST, bool), 0, "x"),
        lambda: ProbeData(np.ones((3, 2)), np.ones((3, 1))),
        lambda: ProbeData(np.full((3, 2), np.nan), np.ones((3, 2))),
        lambda: ProbeData(np.ones(3), np.ones((3, 2))),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("constant", [0.0, 0.1, 14.62, -3e7])
@pytest.mark.parametrize("rounding", [0.0, 1e-16, 6e-8])
def test_a_feature_that_is_constant_but_for_rounding_decides_nothing(
    constant: float, rounding: float
) -> None:
    """Over the training images; in some test images it moves by a thousandth."""
    rng = np.random.default_rng(0)
    data = make(1, 1, gap=1.5)
    flat = constant * (1 + rounding * rng.choice([-1, 0, 1], (N_TRAIN, 1)))
    moved = np.full((N_TEST, 1), constant)
    moved[: N_TEST // 2] += 1e-3
    both = ProbeData(np.hstack([data.train, flat]), np.hstack([data.test, moved]))
    alone, found = (probe(d, TRAIN_Y, TEST_Y, 0, "x") for d in (data, both))
    assert found.accuracy == alone.accuracy
    assert RawProbe(both)(TRAIN_Y, TEST_Y, 0).accuracy == alone.accuracy


def test_small_features_are_features() -> None:
    """What varies little in numbers, and much for its size, is read as ever."""
    data = make(2, 2)
    small = ProbeData(data.train * 2.0**-100, data.test * 2.0**-100)
    assert probe(small, TRAIN_Y, TEST_Y, 0, "x") == probe(data, TRAIN_Y, TEST_Y, 0, "x")
