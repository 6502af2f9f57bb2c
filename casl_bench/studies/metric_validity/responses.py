"""Records of the study → how large a metric is at each level of a family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from casl_bench.studies.metric_validity.graded_edits import FAMILIES
from casl_bench.studies.metric_validity.study_records import EditRow, StudyRecords


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
