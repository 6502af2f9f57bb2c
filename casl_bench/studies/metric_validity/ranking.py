"""Records of the study → how well each metric ranks edits by what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    percentile_interval,
    resampling_weights,
)
from casl_bench.results.score_table import Array, check_array
from casl_bench.studies.metric_validity.edits import FAMILIES, SEED
from casl_bench.studies.metric_validity.scored_edits import EditRow, MetricRef, StudyRecords

# Spearman's rank correlation, and its mean over concepts with an interval over concepts.


def ranks(values: ArrayLike) -> Array:
    """Places from 1 on; equal values share the mean of their places.

    Args:
        values: [n], finite.

    Raises:
        InputError: on another shape, NaN or infinity.
    """
    array = check_array("values", values, 1)
    _, place, count = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_place: Array = (last - (count - 1) / 2)[place]
    return mean_place


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation of the ranks, in [-1, 1].

    Args:
        a: [n], finite.
        b: [n], finite.

    Returns:
        None where either does not vary, or n < 2.

    Raises:
        InputError: on other shapes, NaN or infinity.
    Source: Spearman 1904, with mean ranks for ties.
    """
    x, y = ranks(a), ranks(b)
    if len(x) != len(y):
        raise InputError(f"a correlation needs pairs, got {len(x)} and {len(y)} values")
    if len(x) < 2:
        return None
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else None


@dataclass(frozen=True)
class MeanCorrelation:
    """A mean over concepts.

    Attributes:
        value: None where no concept has a correlation.
        interval: over concepts; None with fewer than two, or where all agree.
        concepts: how many have one.
    """

    value: float | None
    interval: Interval | None
    concepts: int


def mean_over_concepts(correlations: Sequence[float | None], seed: int) -> MeanCorrelation:
    """The mean of those that are defined, with a bootstrap interval over concepts.

    Args:
        correlations: one a concept, None where a concept has none.
        seed: of the resamples.
    """
    known = np.array([c for c in correlations if c is not None], dtype=np.float64)
    if len(known) == 0:
        return MeanCorrelation(None, None, 0)
    interval = None
    if len(known) > 1:
        interval = percentile_interval(resampling_weights(len(known), RESAMPLES, seed) @ known)
    return MeanCorrelation(float(known.mean()), interval, len(known))


ALL, ATTRIBUTES, MATCHED = "all", "attributes", "matched"
KNOWN_PRECISION = tuple(f.name for f in FAMILIES.values() if f.truth == "precision")
DAMAGE = tuple(f.name for f in FAMILIES.values() if f.truth == "damage")
COLUMNS: dict[str, tuple[str, ...]] = {
    ALL: KNOWN_PRECISION,
    ATTRIBUTES: tuple(name for name in KNOWN_PRECISION if name != "identity_drift"),
    MATCHED: tuple(name for name in KNOWN_PRECISION if FAMILIES[name].matched),
    **{name: (name,) for name in FAMILIES},
}
"""Column of a table → the families whose edits are ranked together in it."""

NEEDS_KNOWN_FACTORS = ("factor_epr", "pixel_locality")
"""Metrics that exist on drawn images alone: judged here, but no headline of a benchmark."""
MOST_UNDEFINED = 0.05
"""A metric undefined for more than this share of the edits cannot rank them."""

Key = tuple[str, str]
"""(data set, concept)."""


@dataclass(frozen=True)
class Ranking:
    """How a metric ranks the edits of one column.

    Attributes:
        within: rank correlation with the truth within a concept, mean over concepts.
        over: the same over the edits of all concepts together; None where it does not exist.
        concepts: all of them; `within` counts those in which the metric varies.
        defined: edits for which the metric has a value.
        edits: all of them.
    """

    within: MeanCorrelation
    over: float | None
    concepts: int
    defined: int
    edits: int


def oriented(metric: MetricRef) -> int:
    """+1 where a higher value is better, -1 where a lower one is."""
    return -1 if metric.higher_is_better is False else 1


def ranking(
    records: StudyRecords, metric: str, classifier: str, families: Sequence[str]
) -> Ranking:
    """Rank correlation of a metric with the known precision, or with the damage reversed.

    Args:
        records: of the study.
        metric: its name.
        classifier: whose logits.
        families: of one kind of truth, whose edits are ranked together.
    """
    points = _points(records, metric, classifier, families)
    pairs = [_defined(p) for p in points.values()]
    together = np.concatenate(pairs) if pairs else np.empty((0, 2))
    seed = derive_seed(SEED, "study interval", metric, *families)
    return Ranking(
        mean_over_concepts([_correlation(p) for p in pairs], seed),
        _correlation(together),
        len(points),
        len(together),
        sum(len(p) for p in points.values()),
    )


@dataclass(frozen=True)
class Verdict:
    """Which metric the study favours, by the rule on its page.

    Attributes:
        metric: its name.
        scores: eligible metric → the lower, over classifiers, of its mean rank correlations with
            the known precision within a concept.
        level: metrics whose score is not shown to be lower, with the interval of the difference.
    """

    metric: str
    scores: dict[str, float]
    level: dict[str, Interval | None]


def verdict(records: StudyRecords, column: str = ALL) -> Verdict:
    """The metric with the highest score, among those that real images have, too.

    Args:
        records: of the study.
        column: of `COLUMNS`: the families that count.

    Raises:
        InvalidBenchmarkError: no metric ranks these edits.
    """
    found = _eligible(records, COLUMNS[column])
    if not found:
        raise InvalidBenchmarkError("no metric ranks the edits of the study")
    scores = {name: float(values.mean(1).min()) for name, values in found.items()}
    best = max(scores, key=lambda name: scores[name])
    level = {}
    for name in scores:
        if name != best:
            difference = _difference(found[best], found[name])
            if difference is None or difference[0] <= 0:
                level[name] = difference
    return Verdict(best, scores, level)


def classifiers(records: StudyRecords) -> list[str]:
    """In the order of the records: the primary one first."""
    return list(dict.fromkeys(row.classifier for row in records.edits))


def _eligible(records: StudyRecords, families: Sequence[str]) -> dict[str, Array]:
    """Metric → its correlations [classifiers, concepts], where none is missing."""
    found = {}
    for ref in records.header.metrics:
        if ref.name in NEEDS_KNOWN_FACTORS or ref.higher_is_better is None:
            continue
        rows = []
        for classifier in classifiers(records):
            points = _points(records, ref.name, classifier, families).values()
            pairs = [_defined(p) for p in points]
            if sum(map(len, pairs)) >= (1 - MOST_UNDEFINED) * sum(map(len, points)):
                rows.append([_correlation(p) for p in pairs])
        if len(rows) == len(classifiers(records)) and all(v is not None for r in rows for v in r):
            found[ref.name] = np.array(rows, dtype=np.float64)
    return found


def _difference(best: Array, other: Array) -> Interval | None:
    """Interval of the difference of two scores, over concepts that are resampled for both."""
    concepts = best.shape[1]
    weights = resampling_weights(concepts, RESAMPLES, derive_seed(SEED, "study verdict"))
    scores = [(values @ weights.T).min(0) for values in (best, other)]
    return percentile_interval(scores[0] - scores[1]) if concepts > 1 else None


def _points(
    records: StudyRecords, metric: str, classifier: str, families: Sequence[str]
) -> dict[Key, list[tuple[float | None, float]]]:
    """(data set, concept) → (oriented value, truth) of each edit."""
    place = records.place(metric)
    sign = oriented(records.header.metrics[place])
    truth = _truth(families)
    wanted = set(families)
    if any(FAMILIES[name].with_exact for name in families):
        wanted.add("exact")
    points: dict[Key, list[tuple[float | None, float]]] = {}
    for row in records.edits:
        if row.classifier == classifier and row.family in wanted:
            value = row.values[place]
            known = None if value is None else sign * value
            points.setdefault((row.dataset, row.concept), []).append((known, truth(row)))
    return points


def _truth(families: Sequence[str]) -> Callable[[EditRow], float]:
    if all(FAMILIES[name].truth == "damage" for name in families):
        return lambda row: -row.level
    return lambda row: row.precision


def _defined(points: Sequence[tuple[float | None, float]]) -> Array:
    return np.array([p for p in points if p[0] is not None], dtype=np.float64).reshape(-1, 2)


def _correlation(pairs: Array) -> float | None:
    return rank_correlation(pairs[:, 0], pairs[:, 1])


# Records of the study → how large a metric is at each level of a family.


@dataclass(frozen=True)
class Point:
    """One level of a family, as medians over concepts.

    Attributes:
        level: of the family; 0 is the exact edit where that belongs to it.
        precision: the known one.
        value: of the metric; None where it is undefined for most.
    """

    level: float
    precision: float
    value: float | None


def response(records: StudyRecords, metric: str, classifier: str, family: str) -> list[Point]:
    """A metric at each level of a family, in order of level.

    Where a family's levels are strengths, each precision has points of its own.

    Args:
        records: of the study.
        metric: its name.
        classifier: whose logits.
        family: of `FAMILIES`.
    """
    wanted = {family, "exact"} if FAMILIES[family].with_exact else {family}
    strengths = family == "unmatched_strength"
    groups: dict[tuple[float, float], list[EditRow]] = {}
    for row in records.edits:
        if row.classifier == classifier and row.family in wanted:
            key = (row.level, round(row.precision, 2) if strengths else 0.0)
            groups.setdefault(key, []).append(row)
    place = records.place(metric)
    return [_point(groups[key], place) for key in sorted(groups)]


def exact(records: StudyRecords, metric: str, classifier: str) -> Point:
    """A metric at the exact edit."""
    rows = [r for r in records.edits if r.classifier == classifier and r.family == "exact"]
    return _point(rows, records.place(metric))


def worst(records: StudyRecords, metric: str, classifier: str, family: str) -> Point:
    """The last level that each concept has of a family."""
    of_family = [r for r in records.edits if r.classifier == classifier and r.family == family]
    last: dict[tuple[str, str], float] = {}
    for row in of_family:
        key = (row.dataset, row.concept)
        last[key] = max(row.level, last.get(key, row.level))
    rows = [r for r in of_family if r.level == last[r.dataset, r.concept]]
    return _point(rows, records.place(metric))


def _point(rows: Sequence[EditRow], place: int) -> Point:
    known = [v for r in rows if (v := r.values[place]) is not None]
    value = median(known) if 2 * len(known) > len(rows) else None
    return Point(median(r.level for r in rows), median(r.precision for r in rows), value)
