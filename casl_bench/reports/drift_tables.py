"""What else an edit moves: the drift of the attributes that it was not to touch.

A concept's target is the attribute of its name. Where there is none of that name, nobody can tell
from the records what was off target: its row has no bold cell and it enters no mean.
"""

from __future__ import annotations

from functools import partial

from casl_bench.records.record import RunRecord
from casl_bench.reports.grouping import (
    Group,
    RowKey,
    mean,
    over_concepts,
    row_name,
    section,
    shown_mean,
)
from casl_bench.reports.markdown import Footnotes, escape, fold, number, table

_ABOUT = (
    "Mean absolute drift, in σ, over the concepts that aim at another attribute: what a method "
    "drags along. Smaller is better. A concept's drift is the signed mean change over its test "
    "images at the chosen strength: changes that cancel do not count here, but under collateral."
)


def drift_section(group: Group) -> str:
    """Off-target drift by attribute, one row a method; concepts × attributes in a fold each."""
    attributes = _attributes(group)
    if not attributes:
        return ""
    targets = {c: _target(r) for row in group.edits.values() for c, r in row.items()}
    notes, rows = Footnotes(), []
    for key in group.edits:
        cells = []
        for attribute in attributes:
            found = group.values(key, partial(_off_target, attribute=attribute))
            others = {c: v for c, v in found.items() if targets[c] != attribute}
            if others:
                cells.append(over_concepts(others, group, shown_mean(2), notes))
            else:
                cells.append(notes.mark("no concept that aims at another attribute"))
        whole = over_concepts(group.values(key, _mean_off_target), group, shown_mean(2), notes)
        rows.append([row_name(key), *cells, whole])
    body = notes.under(table(["method", *map(escape, attributes), "all"], rows))
    parts = [_ABOUT, *_nameless(targets), body]
    for key in group.edits:
        _, method, beside = key
        name = f"{method} beside {beside}" if beside else method
        parts.append(fold(f"{name}, drift by concept", _matrix(group, key, attributes)))
    return section("Drift of the other attributes", *parts)


def drift_overall_section(group: Group) -> str:
    """Off-target drift by data set: attributes differ between them, so only their mean is shown."""
    if not _attributes(group):
        return ""
    notes, rows = Footnotes(), []
    for key in group.edits:
        found = group.values(key, _mean_off_target)
        by_dataset = [
            over_concepts({c: found[c] for c in concepts}, group, shown_mean(2), notes)
            for concepts in group.datasets.values()
        ]
        rows.append([row_name(key), *by_dataset, over_concepts(found, group, shown_mean(2), notes)])
    headings = ["method", *map(escape, group.datasets), "all"]
    return section(
        "Drift of the other attributes, overall",
        "Mean absolute drift, in σ, of all attributes that a concept does not aim at, mean over "
        "concepts. Smaller is better. By attribute it stands with each data set.",
        notes.under(table(headings, rows)),
    )


def _matrix(group: Group, key: RowKey, attributes: list[str]) -> str:
    """Signed drift, concepts × attributes, the target in bold."""
    notes, rows, done = Footnotes(), [], group.done(key)
    for concept in group.concepts:
        record = done.get(concept)
        if record is None:
            mark = notes.mark(f"no number for {concept}")
            rows.append([escape(concept), "", *(mark for _ in attributes)])
            continue
        cells = []
        for attribute in attributes:
            value = record.drift.get(attribute)
            cell = notes.mark("undefined") if value is None else number(value)
            if value is not None and attribute in record.drift_margin:
                cell += f" ± {number(record.drift_margin[attribute])}"
            cells.append(f"**{cell}**" if attribute == _target(record) else cell)
        strength = "" if record.strength is None else f"{record.strength:g}"
        rows.append([escape(concept), strength, *cells])
    body = table(["concept", "strength", *map(escape, attributes)], rows)
    about = (
        "Signed mean change of each attribute over the test images, in σ, with half of its 95 % "
        "interval; in bold the one that is to change."
    )
    return f"{about}\n\n{notes.under(body)}"


def _attributes(group: Group) -> list[str]:
    """Those with a drift anywhere, in the classifiers' order."""
    records = [r for key in group.edits for r in group.done(key).values()]
    with_drift = {a for r in records for a in r.drift}
    ordered = dict.fromkeys(a for r in records for a in r.attributes if a in with_drift)
    return [*ordered, *sorted(with_drift - set(ordered))]


def _target(record: RunRecord) -> str | None:
    known = {*record.attributes, *record.drift}
    return record.concept if record.concept in known else None


def _off_target(record: RunRecord, attribute: str) -> float | None:
    """|drift| of an attribute that the concept does not aim at."""
    target, value = _target(record), record.drift.get(attribute)
    return None if target is None or target == attribute or value is None else abs(value)


def _mean_off_target(record: RunRecord) -> float | None:
    """Mean |drift| of all attributes but the target; None where one of them has none."""
    names = [*dict.fromkeys([*record.attributes, *record.drift])]
    values = [_off_target(record, a) for a in names if a != _target(record)]
    there = [v for v in values if v is not None]
    return mean(there) if there and len(there) == len(values) else None


def _nameless(targets: dict[str, str | None]) -> list[str]:
    without = [escape(c) for c, target in sorted(targets.items()) if target is None]
    if not without:
        return []
    return [f"No attribute is named like {', '.join(without)}: what is off target is not known."]
