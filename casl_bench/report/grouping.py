"""Records that may stand in one table, sorted into rows (methods) and concepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from casl_bench.metrics.bootstrap import student_margin
from casl_bench.report.markdown import DASH, Footnotes, escape, number
from casl_bench.results.record import Measurement, RunRecord

RowKey = tuple[bool, str, str]
"""(control, method, beside): also the order of rows, controls last."""


@dataclass
class Group:
    """Comparable records.

    Attributes:
        records: all of them, in an order that does not depend on how they were given.
        across: whether they are of several data sets; a concept is then named with its data set.
        edits: row → concept → record, of the kind "edit".
        concepts: every concept that any of them edits.
        datasets: data set → its concepts, under the names that they have here.
    """

    records: list[RunRecord]
    across: bool = False
    edits: dict[RowKey, dict[str, RunRecord]] = field(default_factory=dict)
    concepts: list[str] = field(default_factory=list)
    datasets: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort records into rows and concepts."""
        self.records.sort(
            key=lambda r: (
                r.kind,
                r.method or "",
                r.beside or "",
                r.fit_seed,
                r.dataset,
                r.concept or "",
            )
        )
        for record in self.of_kind("edit"):
            if record.fit_seed and not record.control:
                continue  # another fit of the same method: the comparison tells how they differ
            draw = f" #{record.fit_seed}" if record.fit_seed else ""
            key = (record.control, (record.method or "") + draw, record.beside or "")
            self.edits.setdefault(key, {})[self.concept_of(record)] = record
        # A row of skipped cells only is a control that does not apply: no row.
        self.edits = {
            key: row
            for key, row in sorted(self.edits.items())
            if any(record.status != "skipped" for record in row.values())
        }
        of = {c: r.dataset for row in self.edits.values() for c, r in row.items()}
        self.concepts = sorted(of)
        for dataset in sorted(set(of.values())):
            self.datasets[dataset] = [c for c in self.concepts if of[c] == dataset]

    def of_kind(self, kind: str) -> list[RunRecord]:
        """Its records of one kind."""
        return [r for r in self.records if r.kind == kind]

    def concept_of(self, record: RunRecord) -> str:
        """The name under which a record's concept stands here."""
        concept = record.concept or ""
        return f"{record.dataset}/{concept}" if self.across else concept

    def done(self, key: RowKey) -> dict[str, RunRecord]:
        """Concept → a row's records that hold results."""
        return {c: r for c, r in self.edits.get(key, {}).items() if r.status == "done"}

    def measurement(self, key: RowKey, concept: str, name: str) -> Measurement | None:
        """A cell's measurement at its chosen strength; None where it has none."""
        record = self.done(key).get(concept)
        return None if record is None else record.measurements.get(name)

    def values(
        self, key: RowKey, of: Callable[[RunRecord], float | None]
    ) -> dict[str, float | None]:
        """Concept → a number of its record in a row; None where the row has no result for it."""
        done = self.done(key)
        return {c: of(done[c]) if c in done else None for c in self.concepts}

    def supervision(self, key: RowKey) -> str:
        """What guided a row's fits; a dash where a comparison's file lacks the row's records."""
        own = self.edits.get(key, {})
        return next((r.supervision for r in own.values() if r.supervision), "none" if own else DASH)


def mean_measurement(
    group: Group, key: RowKey, name: str, digits: int, notes: Footnotes, dataset: str | None = None
) -> str:
    """Mean over concepts, or a dash where any concept has no number.

    Args:
        group: of the row.
        key: the row.
        name: of the measurement.
        digits: decimals.
        notes: where a dash's reason goes.
        dataset: over the concepts of this one alone.
    """
    concepts = group.concepts if dataset is None else group.datasets[dataset]
    found = {c: group.measurement(key, c, name) for c in concepts}
    values = [m.value for m in found.values() if m is not None and m.value is not None]
    if len(values) == len(found):
        share = all(m is None or m.unit == "share" for m in found.values())
        return with_interval(values, digits, (0.0, 1.0) if share else None)
    absent = [c for c, m in found.items() if m is None]
    done = [c for c in group.done(key) if c in found]
    if len(absent) == len(found) == len(done):
        return DASH  # no such number exists for this kind of row
    if absent:
        return notes.mark(f"no number for {listed(absent, group)}")
    without = {c: m.reason or "" for c, m in found.items() if m is not None and m.value is None}
    # What comes after a reason's colon are figures that differ between concepts.
    reasons = sorted({reason.split(":")[0] for reason in without.values()})
    return notes.mark(f"undefined for {listed(without, group)}: {'; '.join(reasons)}")


def over_concepts(
    found: Mapping[str, float | None],
    group: Group,
    show: Callable[[list[float]], str],
    notes: Footnotes,
    why: str = "no number",
) -> str:
    """All concepts' numbers as one, or a dash where any of them is not there.

    Args:
        found: concept → number or None; every concept that counts is among them.
        group: that the concepts are of.
        show: what one or more numbers become, see `shown_mean` and `shown_largest`.
        notes: where a dash's reason goes.
        why: the reason; the concepts without a number are put after it.
    """
    values = [v for v in found.values() if v is not None]
    if values and len(values) == len(found):
        return show(values)
    without = listed((c for c, v in found.items() if v is None), group)
    return notes.mark(f"{why} for {without}" if without else why)


def with_interval(
    values: Sequence[float], digits: int, bounds: tuple[float, float] | None = None
) -> str:
    """The mean of one or more concepts' numbers with its t interval, which needs two.

    Each number is itself of a sample of images: that is part of how they differ. The interval ends
    where the numbers' range does.
    """
    text, count = number(sum(values) / len(values), digits), len(values)
    if count < 2:
        return text
    half = float(student_margin(np.array(values)))
    if half == 0:
        return text
    centre = sum(values) / count
    low, high = centre - half, centre + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return f"{text} [{number(low, digits)}, {number(high, digits)}]"


def shown_mean(digits: int) -> Callable[[list[float]], str]:
    """Shows the mean with its t interval over concepts."""
    return partial(with_interval, digits=digits)


def shown_largest(digits: int) -> Callable[[list[float]], str]:
    """Shows the largest; an interval would need more than these concepts tell."""
    return lambda values: number(max(values), digits)


def mean(values: list[float]) -> float:
    """Of one or more numbers."""
    return sum(values) / len(values)


def listed(concepts: Iterable[str], group: Group) -> str:
    """Names with commas; a data set of which every concept is meant stands for all of them."""
    left = list(concepts)
    if not group.across:
        return ", ".join(left)
    names: list[str] = []
    for dataset, every in group.datasets.items():
        own = [c for c in every if c in left]
        names += [f"all of {dataset}"] if own == every else own
    return ", ".join(names)


def row_name(key: RowKey) -> str:
    """As the first cell of a row shows it: controls in italics."""
    control, method, beside = key
    name = escape(method) + (f" beside {escape(beside)}" if beside else "")
    return f"*{name}*" if control else name


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it."""
    return "\n\n".join([f"### {title}", *parts])
