"""The intervals cover the truth about as often as they say, in simulation."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.metrics.bootstrap import evaluate, wilson_interval
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.metric import METRICS, EditMetric

TRIALS = 300


def simulate(rng: np.random.Generator, n: int) -> EditScores:
    """Images that differ in how strongly they react, in target and others alike."""
    reaction = rng.lognormal(0, 0.4, size=(n, 1))
    change = reaction * rng.normal([1.0, 0.2, 0.2, 0.2], 0.3, size=(n, 4))
    base = rng.normal(size=(n, 4))
    return EditScores(base, base, base + change, 0, 1, np.ones(4))


@pytest.mark.parametrize(
    "name", ["epr_raw", "signed_target_change", "mean_collateral", "flip_rate"]
)
def test_coverage_is_near_nominal_at_64_images(name: str) -> None:
    import casl_bench.metrics.edit_success
    import casl_bench.metrics.epr  # noqa: F401 - registers

    metric: EditMetric = METRICS.create(name)
    rng = np.random.default_rng(7)
    truth = metric.value(simulate(rng, 200_000))
    assert truth is not None
    covered = 0
    for trial in range(TRIALS):
        estimate = evaluate(metric, simulate(rng, 64), trial % 8, resamples=400)
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    # Percentile intervals of 64 skewed rows fall a little short; sd of this share is 0.013.
    assert 0.90 <= covered / TRIALS <= 0.985


@pytest.mark.parametrize("name", ["epr_raw", "signed_target_change", "mean_collateral"])
def test_coverage_is_nominal_at_the_32_images_of_the_published_suite(name: str) -> None:
    import casl_bench.metrics.edit_success
    import casl_bench.metrics.epr  # noqa: F401 - registers

    metric: EditMetric = METRICS.create(name)
    rng = np.random.default_rng(3)
    truth = metric.value(simulate(rng, 200_000))
    assert truth is not None
    covered = 0
    for trial in range(800):
        estimate = evaluate(metric, simulate(rng, 32), trial % 8, resamples=400)
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert 0.92 <= covered / 800 <= 0.97  # without expanded tails 0.918 to 0.931 here


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_wilson_coverage_is_near_nominal(share: float) -> None:
    n = 64
    counts = np.random.default_rng(0).binomial(n, share, size=4000)
    intervals = {c: wilson_interval(c, n) or (1.0, 0.0) for c in set(counts.tolist())}
    covered = sum(low <= share <= high for low, high in (intervals[c] for c in counts.tolist()))
    assert 0.92 <= covered / 4000 <= 0.99
