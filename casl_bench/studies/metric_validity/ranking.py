"""Records of the study → how well each metric ranks edits by their known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    percentile_interval,
    resampling_weights,
)
from casl_bench.metrics.edit_scores import Array
from casl_bench.studies.metric_validity.edits import FAMILIES, SEED
from casl_bench.studies.metric_validity.records import StudyRecords

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
"""Metrics that exist on rendered images alone: judged here, but no headline of a benchmark."""
MOST_UNDEFINED = 0.05
"""A metric undefined for more than this share of the edits cannot rank them."""

_CONCEPT = ["dataset", "concept"]


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's rank correlation of two [n], with mean ranks for ties.

    Returns:
        None where either does not vary, or n < 2.
    Source: Spearman 1904.
    """
    ranks = rankdata([a, b], axis=1)
    if ranks.shape[1] < 2 or not np.ptp(ranks, axis=1).all():
        return None
    return round(float(np.corrcoef(ranks)[0, 1]), 12)  # no bits of summation left


@dataclass(frozen=True)
class Ranking:
    """How a metric ranks the edits of one column.

    Attributes:
        within: rank correlation with the truth within a concept, mean over the concepts that have
            one; None where none has.
        interval: of `within`, over concepts; None with fewer than two, or where all agree.
        varying: number of concepts that have a correlation.
        over: the correlation over the edits of all concepts together.
        concepts: number of concepts.
        defined: number of edits for which the metric has a value.
        edits: number of edits.
    """

    within: float | None
    interval: Interval | None
    varying: int
    over: float | None
    concepts: int
    defined: int
    edits: int


@cache
def ranking(
    records: StudyRecords, metric: str, classifier: str, families: tuple[str, ...]
) -> Ranking:
    """Rank correlation of a metric with the known precision, or with the damage reversed.

    Args:
        records: of the study.
        metric: its name.
        classifier: whose logits.
        families: of one kind of truth, whose edits are ranked together.
    """
    points = _points(records, metric, classifier, families)
    within = _within(points)
    own = np.array([c for c in within if c is not None])
    interval = None
    if len(own) > 1:
        seed = derive_seed(SEED, "study interval", metric, *families)
        interval = percentile_interval(resampling_weights(len(own), RESAMPLES, seed) @ own)
    return Ranking(
        float(own.mean()) if len(own) else None,
        interval,
        len(own),
        rank_correlation(*points.defined),
        len(within),
        points.defined.shape[1],
        len(points.value),
    )


@dataclass(frozen=True)
class Verdict:
    """The metric that the study favours, by the rule on its page.

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
    """The metric with the highest score, among those that exist on real images.

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


def _eligible(records: StudyRecords, families: Sequence[str]) -> dict[str, Array]:
    """Metric → its correlations [classifiers, concepts], where none is missing."""
    found = {}
    for metric in records.header.metrics:
        if metric.name in NEEDS_KNOWN_FACTORS or metric.higher_is_better is None:
            continue
        rows = []
        for classifier in records.classifiers:
            points = _points(records, metric.name, classifier, families)
            if np.isfinite(points.value).mean() >= 1 - MOST_UNDEFINED:
                rows.append(_within(points))
        if len(rows) == len(records.classifiers) and all(None not in row for row in rows):
            found[metric.name] = np.array(rows, dtype=np.float64)
    return found


def _difference(best: Array, other: Array) -> Interval | None:
    """Interval of the difference of two scores, over concepts that are resampled for both."""
    concepts = best.shape[1]
    weights = resampling_weights(concepts, RESAMPLES, derive_seed(SEED, "study verdict"))
    scores = [(values @ weights.T).min(0) for values in (best, other)]
    return percentile_interval(scores[0] - scores[1]) if concepts > 1 else None


@dataclass(frozen=True)
class _Points:
    """Per edit: number of its concept, value of the metric (higher is better), and truth."""

    concept: NDArray[np.intp]
    value: Array
    truth: Array

    @property
    def defined(self) -> Array:
        """[2, n] value and truth where there is a value."""
        known = np.isfinite(self.value)
        return np.stack([self.value[known], self.truth[known]])


def _points(
    records: StudyRecords, metric: str, classifier: str, families: Sequence[str]
) -> _Points:
    exact = ["exact"] if any(FAMILIES[f].with_exact for f in families) else []
    rows = _rows(records, classifier, *families, *exact)
    damage = all(FAMILIES[f].truth == "damage" for f in families)
    sign = -1 if records.metric(metric).higher_is_better is False else 1
    truth = -rows["level"] if damage else rows["precision"]
    concept = rows.groupby(_CONCEPT, sort=False).ngroup()
    return _Points(
        np.asarray(concept, dtype=np.intp), sign * rows[metric].to_numpy(), truth.to_numpy()
    )


def _within(points: _Points) -> list[float | None]:
    """The correlation of each concept."""
    masks = (points.concept == c for c in np.unique(points.concept))
    groups = (_Points(points.concept[m], points.value[m], points.truth[m]) for m in masks)
    return [rank_correlation(*group.defined) for group in groups]


# How large a metric is at each level of a family.


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
    rows = _rows(records, classifier, family, *(["exact"] if FAMILIES[family].with_exact else []))
    precision = rows["precision"].round(2) if family == "unmatched_strength" else 0.0
    groups = rows.assign(group=precision).groupby(["level", "group"])
    return [_point(own, metric) for _, own in groups]


def exact(records: StudyRecords, metric: str, classifier: str) -> Point:
    """A metric at the exact edit."""
    return _point(_rows(records, classifier, "exact"), metric)


def worst(records: StudyRecords, metric: str, classifier: str, family: str) -> Point:
    """A metric at the last level that each concept has of a family."""
    rows = _rows(records, classifier, family)
    last = rows.groupby(_CONCEPT)["level"].transform("max")
    return _point(rows[rows["level"] == last], metric)


def _rows(records: StudyRecords, classifier: str, *families: str) -> pd.DataFrame:
    table = records.table
    return table[(table["classifier"] == classifier) & table["family"].isin(families)]


def _point(rows: pd.DataFrame, metric: str) -> Point:
    known = rows[metric].dropna()
    value = float(known.median()) if 2 * len(known) > len(rows) else None
    return Point(float(rows["level"].median()), float(rows["precision"].median()), value)
