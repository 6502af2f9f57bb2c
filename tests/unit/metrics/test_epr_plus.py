"""EPR+ on cases worked by hand, and an interval that covers the choice of directions too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr_plus import EPR_SIGNED, epr_plus, evaluate_epr_plus, null_epr

ZEROS = np.zeros((2, 3))


def moved(*change: list[float], sign: int = 1) -> EditScores:
    """Two images at 0 in all three logits, edited by these changes; no floor, spread 1."""
    return EditScores(ZEROS, ZEROS, np.array(change), 0, sign, np.ones(3))


EDIT = moved([3.0, 0.5, -0.5], [1.0, 0.5, 0.5])  # signed EPR 2 / 0.5 = 4
HALF = moved([1.0, 2.0, 2.0], [-1.0, 2.0, 2.0])  # unsigned 1 / 2, although it cancels signed
TWICE = moved([-2.0, 1.0, 1.0], [2.0, 1.0, -1.0])  # unsigned 2 / 1
STILL = moved([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
ALONE = moved([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])


def null(*random: EditScores) -> float:
    return float(null_epr(np.full((1, len(random[0])), 1 / len(random[0])), random)[0])


def test_random_is_the_geometric_mean_of_unsigned_ratios() -> None:
    assert null(HALF, TWICE) == pytest.approx(1)
    assert null(HALF) == pytest.approx(0.5)
    assert null(HALF, HALF, TWICE) == pytest.approx(0.5 ** (1 / 3))


def test_epr_plus_is_signed_over_random() -> None:
    assert epr_plus(EDIT, [HALF]) == pytest.approx(8)
    assert epr_plus(EDIT, [TWICE]) == pytest.approx(2)
    assert epr_plus(EDIT, [HALF, TWICE]) == pytest.approx(4)


def test_the_wrong_way_is_negative_and_under_every_right_way() -> None:
    wrong = replace(EDIT, edit=-EDIT.edit)
    assert epr_plus(wrong, [HALF, TWICE]) == pytest.approx(-4)
    assert epr_plus(replace(EDIT, edit=ZEROS), [HALF]) == 0


def test_a_null_that_is_none_is_undefined_with_its_reason() -> None:
    for silent, why in ((STILL, "did not move the target"), (ALONE, "nothing but the target")):
        estimate = evaluate_epr_plus(EDIT, [HALF, silent], 0)
        assert estimate.value is None and why in str(estimate.reason) and estimate.low is None
    assert "divide by" in str(evaluate_epr_plus(ALONE, [HALF], 0).reason)
    nobody = evaluate_epr_plus(EDIT.take([]), [HALF.take([])], 0)
    assert (nobody.value, nobody.n, nobody.reason) == (None, 0, "no image")


def test_a_single_attribute_is_undefined() -> None:
    one = EditScores(*(x[:, :1] for x in (ZEROS, ZEROS, EDIT.edit)), 0, 1, np.ones(1))
    assert epr_plus(one, [one]) is None


@pytest.mark.parametrize(
    "random",
    [
        [],
        [HALF.take([0])],
        [HALF, replace(TWICE, target=1)],
        [replace(HALF, target=1)],
        [replace(HALF, spread=np.full(3, 2.0))],
    ],
)
def test_draws_on_other_images_targets_or_units_are_refused(random: list[EditScores]) -> None:
    with pytest.raises(InputError):
        epr_plus(EDIT, random)


def test_one_image_has_a_value_and_no_interval() -> None:
    one = evaluate_epr_plus(EDIT.take([1]), [HALF.take([0]), TWICE.take([0])], 0)
    assert one.value is not None and (one.low, one.high, one.n) == (None, None, 1)


ATTRIBUTES = 6
METHOD = np.array([1.0, 0.2, 0.2, 0.1, 0.1, 0.3])


def simulate(
    rng: np.random.Generator, n: int, k: int, spread_of_draws: float = 0.5
) -> tuple[EditScores, list[EditScores]]:
    """A method and K random directions of equal target change, on images that react alike."""
    base = rng.normal(size=(n, ATTRIBUTES))
    source = base + 0.05 * rng.normal(size=base.shape)
    reaction = rng.lognormal(0, 0.4, (n, 1))

    def edited(direction: np.ndarray) -> EditScores:
        change = reaction * (direction + 0.3 * rng.normal(size=base.shape))
        return EditScores(source, base, base + change, 0, 1, np.ones(ATTRIBUTES))

    def direction() -> np.ndarray:
        others = rng.normal(size=ATTRIBUTES - 1)
        others *= np.exp(spread_of_draws * rng.normal()) / np.abs(others).mean()
        return np.concatenate([[1.0], others])

    return edited(METHOD), [edited(direction()) for _ in range(k)]


def test_the_same_seed_gives_the_same_interval() -> None:
    scores, random = simulate(np.random.default_rng(0), 32, 4)
    first = evaluate_epr_plus(scores, random, 3)
    assert evaluate_epr_plus(scores, random, 3) == first
    assert evaluate_epr_plus(scores, random, 4).low != first.low
    assert first.value is not None and first.low is not None and first.high is not None
    assert first.low < first.value < first.high


def test_more_directions_narrow_the_interval_and_one_is_taken_as_given() -> None:
    cases = [simulate(np.random.default_rng(seed), 64, 16) for seed in range(20)]

    def width(k: int) -> float:
        """Median over cases of log(high / low) with the first k directions."""
        estimates = [evaluate_epr_plus(s, random[:k], 0, resamples=400) for s, random in cases]
        assert all(e.low and e.high for e in estimates)
        return float(np.median([np.log(e.high / e.low) for e in estimates]))  # type: ignore[operator]

    assert width(16) < width(4) < width(2)
    assert width(1) < width(16)


def test_coverage_is_near_nominal_with_eight_directions() -> None:
    rng, trials = np.random.default_rng(5), 800
    top = EPR_SIGNED.value(simulate(rng, 100_000, 1)[0])
    logs = [np.log(null(*simulate(rng, 200, 64)[1])) for _ in range(60)]
    truth = top / np.exp(np.mean(logs))
    covered = 0
    for trial in range(trials):
        estimate = evaluate_epr_plus(*simulate(rng, 64, 8), trial, resamples=400)
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert 0.925 <= covered / trials <= 0.975  # sd of this share is 0.008
