"""What the study keeps, and how well each metric ranks edits by their known truth.

A JSON line each for the study, a scored edit and a side of a trick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field, TypeAdapter
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
from casl_bench.results.record import Finite, Frozen
from casl_bench.studies import Name, parse_study, to_lines
from casl_bench.studies.metric_validity.edits import FAMILIES, SEED

DIGITS = 5
"""Significant digits of a metric's value."""

Values = tuple[Finite | None, ...]


def rounded(value: float | None) -> float | None:
    """With `DIGITS` significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


class MetricRef(Frozen):
    """A metric on trial, as it declares itself.

    Attributes:
        higher_is_better: None where neither is.
        registered: False for a plain alternative of this study.
    """

    name: Name
    version: int
    title: str
    higher_is_better: bool | None
    registered: bool


class StudyHeader(Frozen):
    """What all other lines rest on.

    Attributes:
        version: of the study: of its edits, its truth and its tricks.
        images: number edited per concept, of `split`.
        datasets: data set → revision.
        scorers: data set → scorer → hash of its weights.
        packages: versions of python and of the packages that decide numbers.
        metrics: in the order of an edit's `values`.
        metrics_of_tricks: in the order of a trick's `values`: the same, then EPR+.
    """

    kind: Literal["study"] = "study"
    version: int
    command: Name
    images: int
    split: Name
    datasets: dict[Name, Name]
    scorers: dict[Name, dict[Name, Name]]
    packages: dict[Name, Name]
    metrics: tuple[MetricRef, ...]
    metrics_of_tricks: tuple[MetricRef, ...]


class EditRow(Frozen):
    """One graded edit of one concept, as one classifier and the other scorers see it.

    Attributes:
        family: of `FAMILIES`, or "exact".
        other: the attribute that is changed as well, where it is one.
        level: of the family.
        precision: the known one, in [-1, 1].
        collateral: the known one, in standard deviations summed over factors.
        values: one per metric; None where undefined.
    """

    kind: Literal["edit"] = "edit"
    dataset: Name
    concept: Name
    family: Name
    other: Name = ""
    level: Finite
    classifier: Name
    precision: Finite = Field(ge=-1, le=1)
    collateral: Finite = Field(ge=0)
    values: Values


class TrickRow(Frozen):
    """One side of a trick: medians over its cases with 5 and 95 % quantiles, one per metric.

    A value is None where it is undefined in most cases. A case is a (data set, concept), or a
    (sample of the toy, target), whose classifier is "linear".
    """

    kind: Literal["trick"] = "trick"
    trick: Name
    side: Literal["before", "after"]
    classifier: Name
    cases: int
    values: Values
    low: Values
    high: Values


_ROWS: TypeAdapter[EditRow | TrickRow] = TypeAdapter(
    Annotated[EditRow | TrickRow, Field(discriminator="kind")]
)


@dataclass(frozen=True, eq=False)
class StudyRecords:
    """All records, edits and tricks in the order in which they were made."""

    header: StudyHeader
    edits: tuple[EditRow, ...]
    tricks: tuple[TrickRow, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per edit: its fields, and a column per metric, NaN where undefined."""
        fields = ["dataset", "concept", "family", "level", "classifier", "precision"]
        rows = pd.DataFrame([[getattr(r, f) for f in fields] for r in self.edits], columns=fields)
        values = np.array([r.values for r in self.edits], dtype=np.float64)
        return rows.join(pd.DataFrame(values, columns=[m.name for m in self.header.metrics]))

    @cached_property
    def classifiers(self) -> list[str]:
        """Names, the primary classifier first."""
        return list(dict.fromkeys(row.classifier for row in self.edits))

    def metric(self, name: str) -> MetricRef:
        """A metric on trial; InvalidBenchmarkError where the records do not have it."""
        found = next((m for m in self.header.metrics if m.name == name), None)
        if found is None:
            raise InvalidBenchmarkError(
                f"the study's records hold no metric '{name}'", hint="make them anew"
            )
        return found

    def to_jsonl(self) -> str:
        """One line each, the header first; equal records give equal bytes."""
        return to_lines((self.header, *self.edits, *self.tricks))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> StudyRecords:
        """Read what `to_jsonl` wrote; InvalidBenchmarkError on anything else."""
        header, rows = parse_study(text, StudyHeader, _ROWS, where)
        edits = tuple(row for row in rows if isinstance(row, EditRow))
        tricks = tuple(row for row in rows if isinstance(row, TrickRow))
        if any(len(r.values) != len(header.metrics) for r in edits) or any(
            len(r.values) != len(header.metrics_of_tricks) for r in tricks
        ):
            raise InvalidBenchmarkError("rows and header differ in their metrics", where=where)
        return cls(header, edits, tricks)


# Rankings.

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
"""Metrics that exist on rendered images alone: tried here, but no headline of a benchmark."""
MOST_UNDEFINED = 0.05
"""A metric undefined for more than this share of the edits cannot rank them."""

_CONCEPT = ["dataset", "concept"]


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's, of two [n], mean ranks for ties; None where either does not vary, or n < 2."""
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
        defined: number of edits, of `edits`, for which the metric has a value.
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

    All families are of one kind of truth; their edits are ranked together.
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
        _correlation(points),
        len(within),
        int(points["value"].notna().sum()),
        len(points),
    )


@dataclass(frozen=True)
class Verdict:
    """The metric that the study favours, by the rule on its page.

    The score of each eligible metric is the lower, over classifiers, of its mean rank correlations
    with the known precision within a concept. `level` holds the metrics whose score is not shown to
    be lower, with the interval of the difference.
    """

    metric: str
    scores: dict[str, float]
    level: dict[str, Interval | None]


def verdict(records: StudyRecords, column: str = ALL) -> Verdict:
    """The metric with the highest score on a column, among those that exist on real images.

    Raises InvalidBenchmarkError where no metric ranks these edits.
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
            if points["value"].notna().mean() >= 1 - MOST_UNDEFINED:
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


def _points(
    records: StudyRecords, metric: str, classifier: str, families: Sequence[str]
) -> pd.DataFrame:
    """Per edit: its concept, value of the metric (higher is better), and truth."""
    exact = ["exact"] if any(FAMILIES[f].with_exact for f in families) else []
    rows = _rows(records, classifier, *families, *exact)
    damage = all(FAMILIES[f].truth == "damage" for f in families)
    sign = -1 if records.metric(metric).higher_is_better is False else 1
    truth = -rows["level"] if damage else rows["precision"]
    return rows[_CONCEPT].assign(value=sign * rows[metric], truth=truth)


def _correlation(points: pd.DataFrame) -> float | None:
    known = points.dropna(subset="value")
    return rank_correlation(known["value"], known["truth"])


def _within(points: pd.DataFrame) -> list[float | None]:
    """The correlation of each concept."""
    return [_correlation(own) for _, own in points.groupby(_CONCEPT, sort=False)]


# How large a metric is at each level of a family.


@dataclass(frozen=True)
class Point:
    """One level of a family, as medians over concepts: its known precision, and a metric's value.

    Level 0 is the exact edit where that belongs to the family; the value is None where it is
    undefined for most.
    """

    level: float
    precision: float
    value: float | None


def response(records: StudyRecords, metric: str, classifier: str, family: str) -> list[Point]:
    """A metric at each level of a family, in order of level.

    Where a family's levels are strengths, each precision has points of its own.
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
