"""How often the headline's intervals and tests err, by simulation on the stored scores of a run.

A simulated run takes concepts and images of the stored one with replacement. For coverage the truth
is the stored run's own mean. For false positives the methods change places at random on each
concept, so that none is better than another, however much they differ on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from casl_bench.analysis.analyse import group_cells, headline_matrix
from casl_bench.analysis.comparison import aggregates
from casl_bench.analysis.headline import PreciseEditMatrix, PreciseEdits
from casl_bench.analysis.significance import ALPHA, is_significant, paired_differences
from casl_bench.analysis.uncertainty import Design, ResampledScores, resample_scores
from casl_bench.core.errors import UsageError
from casl_bench.metrics.bootstrap import wilson_interval
from casl_bench.results.published_scores import read_published
from casl_bench.results.record import GAP
from casl_bench.results.stored_cells import read_cells

RESAMPLES = 300
"""Of each simulated run."""

Concepts = dict[tuple[str, str], dict[str, PreciseEdits]]


@dataclass(frozen=True)
class HeadlineRates:
    """What was found in `runs` simulated runs of some methods.

    Attributes:
        covered: share of the methods' intervals, for other concepts, that hold the truth.
        false_pair: share of pairs of equal methods that a test calls different, without Holm.
        false_any: share of runs of equal methods in which any pair is called different, with Holm.
        found: share of the pairs found, with Holm, whose second loses `GAP` of its precise edits.
    """

    runs: int
    methods: int
    concepts: int
    covered: float
    false_pair: float
    false_any: float
    found: float


def stored_concepts(path: Path) -> Concepts:
    """Precise edits of all methods that are complete, of a run folder or published scores.

    Raises:
        UsageError: if fewer than two methods are complete, or no data set has two concepts.
    """
    cells = read_published(path) if path.is_file() else read_cells(path)
    datasets = [d for d in group_cells(cells) if len(d.concepts) > 1]
    concepts = [(d, c) for d in datasets for c in d.concepts]
    names = sorted({m for d in datasets for m in d.methods})
    complete = [m for m in names if all(0 in d.methods[m].get(c, {}) for d, c in concepts)
                ] if concepts else []  # fmt: skip
    if len(complete) < 2:
        raise UsageError(
            "two methods that ran everything are needed", where=str(path),
            hint="give the folder of a whole run",
        )  # fmt: skip
    matrix = headline_matrix(datasets, concepts, {m: (0,) for m in complete})
    return {key: dict(own) for key, own in matrix.concepts.items()}


def measure_headline_rates(stored: Concepts, runs: int, seed: int) -> HeadlineRates:
    """Simulate `runs` runs for each rate."""
    methods = list(next(iter(stored.values())))
    truth = {m: float(np.mean([own[m].value for own in stored.values()])) for m in methods}
    covered = tests = false_pairs = pairs = false_runs = found = gaps = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        sampled = _resampled(stored, rng)
        scores = _scores(sampled, methods, run)
        for own in aggregates(scores):
            if own.low is not None and own.high is not None:
                tests += 1
                covered += own.low <= truth[own.method] <= own.high
        equal = paired_differences(_scores(_exchanged(sampled, methods, rng), methods, run))
        pairs += len(equal)
        false_pairs += sum(p.p is not None and p.p <= ALPHA for p in equal)
        false_runs += any(map(is_significant, equal))
        best = max(methods, key=lambda m: truth[m])
        worse = {key: {best: own[best], "worse": _weakened(own[best], rng)}
                 for key, own in sampled.items()}  # fmt: skip
        (pair,) = paired_differences(_scores(worse, [best, "worse"], run))
        gaps += 1
        found += is_significant(pair)
    return HeadlineRates(
        runs, len(methods), len(stored), covered / max(tests, 1), false_pairs / max(pairs, 1),
        false_runs / runs, found / gaps,
    )  # fmt: skip


def _scores(concepts: Concepts, methods: Sequence[str], seed: int) -> ResampledScores:
    matrix = PreciseEditMatrix({k: {m: own[m] for m in methods} for k, own in concepts.items()})
    design = Design(tuple(d for d, _ in matrix.images), tuple(d for d, _ in matrix.concepts))
    return resample_scores(matrix.scores, matrix.methods, design, seed, resamples=RESAMPLES)


def _resampled(stored: Concepts, rng: np.random.Generator) -> Concepts:
    """Concepts and images of each data set with replacement; a repeated one is another one."""
    found: Concepts = {}
    for dataset in sorted({d for d, _ in stored}):
        keys = [key for key in stored if key[0] == dataset]
        images = sorted({i for k in keys for e in stored[k].values() for i in e.image_ids})
        copies = rng.multinomial(len(images), np.full(len(images), 1 / len(images)))
        count = dict(zip(images, copies.tolist(), strict=True))
        for place, chosen in enumerate(rng.integers(len(keys), size=len(keys))):
            own = {m: _copied(e, count) for m, e in stored[keys[chosen]].items()}
            if all(e.eligible.any() for e in own.values()):
                found[dataset, f"{keys[chosen][1]} {place}"] = own
    return found


def _copied(edits: PreciseEdits, count: dict[str, int]) -> PreciseEdits:
    rows = [(i, k) for i, image in enumerate(edits.image_ids) for k in range(count[image])]
    index = np.array([i for i, _ in rows], dtype=np.intp)
    ids = tuple(f"{edits.image_ids[i]} {k}" for i, k in rows)
    return PreciseEdits(ids, edits.credit[index], edits.eligible[index], edits.flipped[index])


def _exchanged(concepts: Concepts, methods: list[str], rng: np.random.Generator) -> Concepts:
    found: Concepts = {}
    for key, own in concepts.items():
        order = [methods[i] for i in rng.permutation(len(methods))]
        found[key] = {name: own[other] for name, other in zip(methods, order, strict=True)}
    return found


def _weakened(edits: PreciseEdits, rng: np.random.Generator) -> PreciseEdits:
    """The same edits, of which each image loses all its credit with probability `GAP`."""
    return replace(edits, credit=edits.credit * (rng.random(len(edits.credit)) >= GAP))


def headline_rates_text(rates: HeadlineRates) -> str:
    """A few lines for the terminal."""
    low, high = wilson_interval(rates.false_any * rates.runs, rates.runs) or (0.0, 1.0)
    return "\n".join(
        [
            f"{rates.runs} simulated runs of {rates.methods} methods on {rates.concepts} concepts:",
            f"  95 % intervals hold the truth: {rates.covered:.3f}",
            f"  equal methods called different, each pair at 5 %: {rates.false_pair:.3f}",
            f"  any pair of a run, with Holm: {rates.false_any:.3f} [{low:.3f}, {high:.3f}]",
            f"  a loss of {GAP:.0%} of all precise edits found: {rates.found:.3f}",
        ]
    )
