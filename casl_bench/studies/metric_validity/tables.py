"""Tables of the study's page."""

from __future__ import annotations

from collections.abc import Sequence

from casl_bench.metrics.intervals import Interval
from casl_bench.reports.markdown import DASH, fold, number, table
from casl_bench.studies.metric_validity.gaming import TRICKS
from casl_bench.studies.metric_validity.graded_edits import FAMILIES
from casl_bench.studies.metric_validity.ranking import (
    ALL,
    ATTRIBUTES,
    COLUMNS,
    MATCHED,
    Ranking,
    classifiers,
    ranking,
)
from casl_bench.studies.metric_validity.responses import exact, worst
from casl_bench.studies.metric_validity.study_records import (
    MetricRef,
    StudyRecords,
    TrickRow,
    Values,
)

POOLED = (ALL, ATTRIBUTES, MATCHED)
IN_TRICKS = (
    "epr_raw", "epr_std", "epr_signed", "epr_plus", "worst_attribute_epr", "flip_precision",
    "signed_target_change", "flip_rate", "clip_similarity", "perceptual_guard", "identity_guard",
    "pixel_locality", "factor_epr",
)  # fmt: skip
"""Metrics of the short table of tricks; all are in the folds."""


def families_table(records: StudyRecords) -> str:
    """What each family does, and which precisions it spans."""
    rows = []
    for family in FAMILIES.values():
        known = [r.precision for r in records.edits if r.family == family.name]
        span = f"{number(max(known))} to {number(min(known))}" if known else DASH
        rows.append([f"`{family.name}`", family.what, span])
    return table(["family", "edits", "known precision"], rows, 2)


def within_table(records: StudyRecords, classifier: str, columns: Sequence[str]) -> str:
    """Rank correlations within a concept; the best of the first column stands first."""
    rows = []
    for metric in records.header.metrics:
        found = [ranking(records, metric.name, classifier, COLUMNS[c]) for c in columns]
        rows.append((found[0].within.value, [metric_name(metric), *map(correlation, found)]))
    rows.sort(key=lambda r: -2.0 if r[0] is None else r[0], reverse=True)
    count = len({(r.dataset, r.concept) for r in records.edits})
    headers = [f"metric (n = {count} concepts)", *(c.replace("_", " ") for c in columns)]
    return table(headers, [row for _, row in rows])


def over_table(records: StudyRecords) -> str:
    """One correlation over the edits of all concepts."""
    columns = [(column, c) for column in POOLED for c in classifiers(records)]
    rows = []
    for metric in records.header.metrics:
        found = [ranking(records, metric.name, c, COLUMNS[column]) for column, c in columns]
        cells = [
            DASH if f.over is None else f"{number(f.over)}{_bracket(_edits(f))}" for f in found
        ]
        rows.append([metric_name(metric), *cells])
    edits = ranking(records, records.header.metrics[0].name, columns[0][1], COLUMNS[ALL]).edits
    return table([f"metric (n = {edits} edits)", *(f"{a}, {b}" for a, b in columns)], rows)


def sizes_table(records: StudyRecords, classifier: str) -> str:
    """Each metric at the exact edit and at the worst level of each family."""
    families = [name for name in FAMILIES if FAMILIES[name].with_exact]
    first = records.header.metrics[0].name
    ends = [worst(records, first, classifier, f) for f in families]
    rows = [["known precision", "1.00", *(number(p.precision) for p in ends)]]
    for metric in records.header.metrics:
        start = exact(records, metric.name, classifier)
        points = [start, *(worst(records, metric.name, classifier, f) for f in families)]
        rows.append([metric_name(metric), *(plain(p.value) for p in points)])
    return table(["", "exact edit", *(f.replace("_", " ") for f in families)], rows)


def tricks_table(records: StudyRecords) -> str:
    """Medians before and after each trick, of some metrics."""
    places = {m.name: k for k, m in enumerate(records.header.metrics_of_tricks)}
    shown = {m: places[m] for m in IN_TRICKS if m in places}
    rows = []
    for name, trick in TRICKS.items():
        for classifier, before, after in trick_sides(records, name):
            cells = [_arrow(before.values[k], after.values[k]) for k in shown.values()]
            rows.append([f"{trick.before} → {trick.after}", f"`{classifier}`", *cells])
    return table(["trick", "classifier", *(f"`{m}`" for m in shown)], rows, 2)


def tricks_folds(records: StudyRecords) -> str:
    """Each trick with all metrics that say anything of it, and their spread over cases."""
    folds = []
    for name, trick in TRICKS.items():
        for classifier, before, after in trick_sides(records, name):
            rows = [
                [metric_name(m), *(_range(side, k) for side in (before, after))]
                for k, m in enumerate(records.header.metrics_of_tricks)
                if before.values[k] is not None or after.values[k] is not None
            ]
            headers = [f"metric (n = {after.cases} cases)", trick.before, trick.after]
            folds.append(fold(f"{name}, by {classifier}", table(headers, rows)))
    return "\n".join(folds)


def trick_sides(records: StudyRecords, trick: str) -> list[tuple[str, TrickRow, TrickRow]]:
    """(classifier, before, after) of a trick, in the order of the records."""
    rows = {(r.classifier, r.side): r for r in records.tricks if r.trick == trick}
    named = dict.fromkeys(c for c, _ in rows)
    return [(c, rows[c, "before"], rows[c, "after"]) for c in named]


def metric_name(metric: MetricRef) -> str:
    """With the direction that is better."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    return f"`{metric.name}`{arrow}" + ("" if metric.registered else " (alternative)")


def correlation(found: Ranking) -> str:
    """The mean within a concept with its interval, and the count where not all are defined."""
    if found.within.value is None:
        return DASH
    around = f" {interval(found.within.interval)}" if found.within.interval else ""
    return f"{number(found.within.value)}{around}{_count(found)}"


def interval(ends: Interval | None) -> str:
    """[low, high]."""
    return "[–]" if ends is None else f"[{number(ends[0])}, {number(ends[1])}]"


def plain(value: float | None) -> str:
    """About three significant digits."""
    if value is None:
        return DASH
    size = abs(value)
    return number(value, 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3)


def _count(found: Ranking) -> str:
    varies = f"n = {found.within.concepts}" if found.within.concepts < found.concepts else ""
    return _bracket(varies, _edits(found))


def _edits(found: Ranking) -> str:
    return f"{found.defined} of {found.edits}" if found.defined < found.edits else ""


def _bracket(*parts: str) -> str:
    said = "; ".join(part for part in parts if part)
    return f" ({said})" if said else ""


def _arrow(before: float | None, after: float | None) -> str:
    return DASH if before is None and after is None else f"{plain(before)} → {plain(after)}"


def _range(side: TrickRow, place: int) -> str:
    value, low, high = (_at(v, place) for v in (side.values, side.low, side.high))
    return value if value == DASH else f"{value} [{low}, {high}]"


def _at(values: Values, place: int) -> str:
    return plain(values[place])
