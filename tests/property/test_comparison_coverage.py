"""What the comparison of methods says holds about as often as it says, in simulation.

Scores are ratios of means, as EPR's, of 32 images a concept out of a pool of 100 that concepts
share. Images react alike on all concepts, and alike again to each method; concepts differ in how
hard they are, for all methods and for each. As a script it runs more trials:
`python tests/property/test_comparison_coverage.py 4000`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from casl_bench.analysis.comparison import aggregates
from casl_bench.analysis.significance import paired_differences, rank_intervals
from casl_bench.analysis.uncertainty import Design, ResampledScores, resample_scores
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.epr_plus import signed_log

IMAGES, USED, RESAMPLES = 100, 32, 300


@dataclass(frozen=True)
class Domain:
    """Standard deviations on the log scale, and how much is measured.

    `skill` is one number a method: the log of its ratio. `concept` is of a concept for all methods,
    `fit` of a concept for one method, be it skill or the seed of its fit; `image` of an image for
    everything, `reaction` of an image to a method, `noise` of each number. `missed` is the share of
    cells that did not reach the effect, which score 0.
    """

    skill: tuple[float, ...] = (1.0,)
    concepts: tuple[int, ...] = (6,)
    concept: float = 0.3
    fit: float = 0.15
    image: float = 0.4
    reaction: float = 0.2
    noise: float = 0.4
    missed: float = 0.0

    @property
    def design(self) -> Design:
        sets = [f"d{d}" for d in range(len(self.concepts))]
        return Design(
            tuple(name for name in sets for _ in range(IMAGES)),
            tuple(name for name, c in zip(sets, self.concepts, strict=True) for _ in range(c)),
        )

    def truths(self, rng: np.random.Generator, count: int) -> Array:
        """[M, count] logs of the true ratio, means over all images, of drawn concepts."""
        hard = self.concept * rng.normal(size=(1, count))
        own = self.fit * rng.normal(size=(len(self.skill), count))
        return np.array(self.skill)[:, None] + hard + own

    def measure(self, rng: np.random.Generator) -> tuple[ResampledScores, Array]:
        """Scores under resampled images, and the true ones [M, C] of the concepts drawn."""
        design, m = self.design, len(self.skill)
        c, i = len(design.concepts), len(design.images)
        logs = self.truths(rng, c)
        reached = rng.uniform(size=logs.shape) >= self.missed
        shared = self.image * rng.normal(size=(i, 1, 1))
        to_method = self.reaction * rng.normal(size=(i, m, 1))
        below = np.exp(to_method - shared / 2 + self._noise(rng, (i, m, c)))
        above = np.exp(logs + shared / 2 + self._noise(rng, (i, m, c)) + self.reaction**2 / 2)
        used = np.zeros((i, c))
        for column, name in enumerate(design.concepts):
            pool = [k for k, own in enumerate(design.images) if own == name]
            used[rng.choice(pool, USED, replace=False), column] = 1
        flat = [np.reshape(v * used[:, None], (i, m * c)) for v in (above, below)]

        def score(weights: Array) -> Array:
            ratio = (weights @ flat[0]) / (weights @ flat[1])
            return signed_log(ratio.reshape(-1, m, c)) * reached

        names = [f"m{k}" for k in range(m)]
        seed = int(rng.integers(16))  # few: weights are then drawn but once
        draws = resample_scores(score, names, design, seed, resamples=RESAMPLES)
        return draws, signed_log(np.exp(logs)) * reached

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return self.noise * rng.normal(size=shape) - self.noise**2 / 2


ORDINARY = Domain()
IMAGES_VARY = Domain(concept=0.15, fit=0.1, image=0.8, reaction=0.4)
CONCEPTS_VARY = Domain(concept=0.8, fit=0.4, image=0.2, reaction=0.1)
HEAVY = Domain(image=0.6, reaction=0.4, noise=0.9)


def coverage(domain: Domain, trials: int, seed: int) -> tuple[float, float]:
    """Shares of trials in which the interval for concepts like these, and for these, held."""
    rng = np.random.default_rng(seed)
    truth = signed_log(np.exp(domain.truths(rng, 400_000)[0])).mean() * (1 - domain.missed)
    beyond = here = 0
    for _ in range(trials):
        draws, scores = domain.measure(rng)
        (wide,), (narrow,) = aggregates(draws), aggregates(draws, generalise=False)
        assert wide.low is not None and wide.high is not None
        assert narrow.low is not None and narrow.high is not None
        beyond += wide.low <= truth <= wide.high
        here += narrow.low <= scores[0].mean() <= narrow.high
    return beyond / trials, here / trials


def false_positives(domain: Domain, trials: int, seed: int) -> float:
    """Share of trials in which two fits of one method differ at p < 0.05."""
    rng = np.random.default_rng(seed)
    copies = replace(domain, skill=domain.skill * 2)
    ps = [paired_differences(copies.measure(rng)[0])[0].p for _ in range(trials)]
    return float(np.mean([p is not None and p < 0.05 for p in ps]))


def rank_coverage(domain: Domain, trials: int, seed: int) -> tuple[float, float, float]:
    """Shares of trials in which every rank lies in its interval; of ranks that do; mean width.

    Methods of equal skill share all their ranks, and each of these must be in the interval.
    """
    rng = np.random.default_rng(seed)
    skill = np.array(domain.skill)
    best = 1 + (skill[None] > skill[:, None]).sum(1)
    worst = len(skill) - (skill[None] < skill[:, None]).sum(1)
    held, width = [], []
    for _ in range(trials):
        draws, _ = domain.measure(rng)
        scores = {a.method: a.value for a in aggregates(draws)}
        ranks = {r.method: r for r in rank_intervals(scores, paired_differences(draws))}
        own = [ranks[name] for name in draws.methods]
        held.append([r.low <= b and w <= r.high for r, b, w in zip(own, best, worst, strict=True)])
        width.append(np.mean([r.high - r.low + 1 for r in own]))
    return float(np.all(held, 1).mean()), float(np.mean(held)), float(np.mean(width))


LADDER = tuple(np.log(1.1) * k for k in range(6))
"""Six methods, each 10 % better than the one before."""
CLEAR = tuple(0.5 * k for k in range(6))
TIED = (0.0, 0.0, 0.0, 0.6, 0.6, 0.6)


@pytest.mark.parametrize("concepts", [6, 8, 20])
def test_a_nominal_95_percent_interval_holds_in_92_to_97_percent(concepts: int) -> None:
    beyond, here = coverage(replace(ORDINARY, concepts=(concepts,)), 250, 1)
    assert 0.92 <= beyond <= 0.97
    assert 0.92 <= here <= 0.97


def test_the_interval_holds_over_three_data_sets() -> None:
    beyond, here = coverage(replace(IMAGES_VARY, concepts=(8, 6, 6)), 300, 0)
    assert 0.92 <= beyond <= 0.97
    assert 0.92 <= here <= 0.97


@pytest.mark.parametrize("concepts", [6, 20])
def test_two_fits_of_one_method_differ_in_6_percent_at_most(concepts: int) -> None:
    assert 0.01 <= false_positives(replace(ORDINARY, concepts=(concepts,)), 300, 1) <= 0.06


@pytest.mark.parametrize("skill", [LADDER, TIED])
def test_all_ranks_lie_in_their_intervals_together_in_90_percent(skill: tuple[float, ...]) -> None:
    together, each, width = rank_coverage(replace(ORDINARY, skill=skill, concepts=(8,)), 80, 0)
    assert together >= 0.9
    assert each >= 0.95
    assert width < 5.5  # something differs at all, or this shows nothing


def main(trials: int) -> None:
    """Print every figure of many domains."""
    domains = {
        "ordinary": ORDINARY,
        "images vary": IMAGES_VARY,
        "concepts vary": CONCEPTS_VARY,
        "heavy tails": HEAVY,
        "a fifth not reached": replace(ORDINARY, missed=0.2),
    }
    for name, domain in domains.items():
        for concepts in ((6,), (8,), (20,), (8, 6, 6), (2, 2, 2)):
            case = replace(domain, concepts=concepts)
            beyond, here = coverage(case, trials, 1)
            false = false_positives(case, trials, 2)
            print(
                f"{name}, concepts {concepts}: other concepts {beyond:.3f}, "
                f"these {here:.3f}, false positives {false:.3f}",
                flush=True,
            )
    for name, skill in {
        "ladder": LADDER,
        "clear": CLEAR,
        "tied": TIED,
        "equal": (0.0,) * 6,
    }.items():
        for concepts in (6, 8, 20):
            case = replace(ORDINARY, skill=skill, concepts=(concepts,))
            together, each, width = rank_coverage(case, trials // 4, 3)
            print(
                f"ranks {name}, {concepts} concepts: all {together:.3f}, each {each:.3f}, "
                f"mean width {width:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
