"""Records of the study → how large a metric is at each level of a family."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from casl_bench.studies.graded_edits import FAMILIES
from casl_bench.studies.study_records import EditRow, StudyRecords


@dataclass(frozen=True)
class Point:
    """One level of a family.

    Attributes:
        family: its name.
        level: of the family; 0 is the exact edit where that belongs to it.
        precision: the known one, median over concepts.
        value: of the metric, median over concepts; None where it is undefined for most.
    """

    family: str
    level: float
    precision: float
    value: float | None


def response(records: StudyRecords, metric: str, classifier: str, family: str) -> list[Point]:
    """A metric at each (level, known precision) of a family, in order of level.

    Args:
        records: of the study.
        metric: its name.
        classifier: whose logits.
        family: of `FAMILIES`.
    """
    place = records.place(metric)
    wanted = {family, "exact"} if FAMILIES[family].with_exact else {family}
    rows = [r for r in records.edits if r.classifier == classifier and r.family in wanted]
    groups: dict[tuple[float, float], list[EditRow]] = {}
    for row in rows:
        # Levels of one family may differ in precision where target and collateral do.
        groups.setdefault((row.level, round(row.precision, 2)), []).append(row)
    return [
        Point(family, level, median(r.precision for r in group), _median(group, place))
        for (level, _), group in sorted(groups.items())
    ]


def exact(records: StudyRecords, metric: str, classifier: str) -> float | None:
    """A metric at the exact edit, median over concepts."""
    rows = [r for r in records.edits if r.classifier == classifier and r.family == "exact"]
    return _median(rows, records.place(metric))


def worst(records: StudyRecords, metric: str, classifier: str, family: str) -> Point:
    """The last level of a family."""
    return response(records, metric, classifier, family)[-1]


def _median(rows: list[EditRow], place: int) -> float | None:
    known = [v for r in rows if (v := r.values[place]) is not None]
    return median(known) if 2 * len(known) > len(rows) else None
