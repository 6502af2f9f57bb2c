"""Records sorted into what may stand in one table: parts, data sets, rows (methods), concepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from casl_bench.analysis.significance import without
from casl_bench.metrics.bootstrap import student_margin
from casl_bench.report.markdown import DASH, Markdown, escape
from casl_bench.results.record import ALL, NOT_CARRIED, Comparison, Kind, Measurement, RunRecord


class RowKey(NamedTuple):
    """Which row of a table; also the order of rows, controls last."""

    control: bool
    method: str
    matched_to: str = ""

    @property
    def name(self) -> str:
        """In words."""
        return self.method + (f" matched to {self.matched_to}" if self.matched_to else "")

    @property
    def is_first_of_its_kind(self) -> bool:
        """False for further cells of a repeated control and for controls matched to a method."""
        return not self.control or not (self.matched_to or " #" in self.method)


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval, if any, or why there is none.

    Attributes:
        value: None where there is none.
        low: lower end of the interval.
        high: upper end.
        reason: why there is no value; empty where a row of this kind never has one.
        missing: whether nothing was run that it could be computed from.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    missing: bool = False

    @classmethod
    def of(cls, found: Measurement | None) -> Number:
        """A record's measurement."""
        if found is None:
            return cls()
        missing = found.status == "missing"
        return cls(found.value, found.low, found.high, found.reason or "", missing)


NOT_DONE = Number(reason="no finished cell")


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
            key=lambda r: (r.kind, r.method or "", r.beside or "", r.fit_seed, r.dataset,
                           r.concept or "")
        )  # fmt: skip
        for record in self.of_kind("edit"):
            if record.fit_seed and not record.control:
                continue  # another fit of the same method: the comparison says how they differ
            again = f" #{record.fit_seed}" if record.fit_seed else ""
            key = RowKey(record.control, (record.method or "") + again, record.beside or "")
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

    @property
    def first(self) -> RunRecord:
        """A record that has the domain, suite and seed of all."""
        return self.records[0]

    @property
    def is_trial(self) -> bool:
        """Whether a suite for trying out made them: their numbers mean nothing, none is shown."""
        return self.first.suite.quick

    @property
    def rows(self) -> list[Row]:
        """All rows, in order."""
        return [Row(self, key) for key in self.edits]

    @cached_property
    def comparison(self) -> Comparison | None:
        """The comparison of the methods whose cells are all here; None where there is none.

        A run for trying out has none to show.
        """
        if self.is_trial:
            return None
        found = next((r.comparison for r in self.of_kind("comparison") if r.comparison), None)
        if found is None:
            return None
        here = {
            (r.method, f"{r.dataset}/{r.concept}")
            for r in self.of_kind("edit")
            if r.status == "done" and not r.control and not r.fit_seed
        }
        gone = {
            s.method for s in found.standings if any((s.method, c) not in here
                                                     for c in found.concepts)
        }  # fmt: skip
        return without(found, gone) if gone else found

    def of_kind(self, kind: Kind) -> list[RunRecord]:
        """Its records of one kind."""
        return [r for r in self.records if r.kind == kind]

    def concept_of(self, record: RunRecord) -> str:
        """The name under which a record's concept stands here."""
        concept = record.concept or ""
        return f"{record.dataset}/{concept}" if self.across else concept

    def done(self, key: RowKey) -> dict[str, RunRecord]:
        """Concept → a row's records that hold results."""
        return {c: r for c, r in self.edits.get(key, {}).items() if r.status == "done"}

    def listed(self, concepts: Iterable[str]) -> str:
        """Names with commas; "all of DATASET" where every concept of it is among them."""
        left = list(concepts)
        if not self.across:
            return ", ".join(left)
        names: list[str] = []
        for dataset, every in self.datasets.items():
            own = [c for c in every if c in left]
            names += [f"all of {dataset}"] if own == every else own
        return ", ".join(names)

    def differing(self) -> dict[str, list[str]]:
        """What the finished edits of a data set must share → their values, several if they differ.

        Values are markdown. Keys are "scorers", "attributes" and "backbones".
        """
        done = [r for r in self.of_kind("edit") if r.status == "done"]
        found: dict[str, set[str]] = {
            "scorers": {
                ", ".join(f"{escape(n)} ({escape(h[:8])})" for n, h in sorted(r.scorers.items()))
                for r in done
            },
            "attributes": {", ".join(map(escape, r.attributes)) for r in done},
            "backbones": {escape((r.backbone or "")[:8]) for r in done},
        }
        return {what: sorted(values) for what, values in found.items()}

    @property
    def not_carried(self) -> list[Markdown]:
        """Attributes that h does not carry, and that are therefore no concepts."""
        flags = {flag for r in self.of_kind("reconstruction") for flag in r.flags}
        names = sorted(f.removeprefix(NOT_CARRIED) for f in flags if f.startswith(NOT_CARRIED))
        return [escape(name) for name in names]

    @property
    def mixed(self) -> tuple[str, ...]:
        """What its finished edits differ in and must not: its numbers are then not comparable."""
        return tuple(what for what, values in self.differing().items() if len(values) > 1)


@dataclass(frozen=True)
class Row:
    """One method or control of a group."""

    group: Group
    key: RowKey

    @property
    def name(self) -> Markdown:
        """As the first cell of a row shows it: controls in italics."""
        name = escape(self.key.name)
        return Markdown(f"*{name}*") if self.key.control else name

    @property
    def done(self) -> dict[str, RunRecord]:
        """Concept → record with results."""
        return self.group.done(self.key)

    @property
    def supervision(self) -> str:
        """What guided its fits; a dash where the group holds none of its records."""
        own = self.group.edits.get(self.key, {})
        return next((r.supervision for r in own.values() if r.supervision), "none" if own else DASH)

    @property
    def concepts(self) -> list[str]:
        """Those that count: of a matched control only those on which it was to be run."""
        own = self.group.edits.get(self.key, {})
        return [c for c in self.group.concepts if c in own or not self.key.matched_to]

    def each(self, of: Callable[[RunRecord], Number | str]) -> dict[str, Number]:
        """Concept → its number; text is no number."""
        done = self.done
        found = {c: of(done[c]) if c in done else NOT_DONE for c in self.concepts}
        return {c: n if isinstance(n, Number) else Number() for c, n in found.items()}


Over = Literal["mean", "largest"]


def over_concepts(
    found: Mapping[str, Number],
    group: Group,
    over: Over = "mean",
    bounds: tuple[float, float] | None = None,
) -> Number:
    """All concepts' numbers as one, or why not: a mean over fewer would be another quantity.

    A mean has a t interval over concepts from two concepts on, which ends at the bounds; a largest
    value has none.
    """
    values = [n.value for n in found.values() if n.value is not None]
    if values and len(values) == len(found):
        return Number(max(values)) if over == "largest" else mean_of(values, bounds)
    reasons = {n.reason for n in found.values() if n.value is None}
    if reasons <= {""}:
        return Number()
    # What comes after a reason's colon are figures that differ between concepts.
    heads = sorted({reason.split(":")[0] for reason in reasons - {"", NOT_DONE.reason}})
    if not values and not reasons & {"", NOT_DONE.reason}:
        return Number(reason="; ".join(heads))
    without = group.listed(c for c, n in found.items() if n.value is None)
    return Number(reason=f"no number for {without}" + (f": {'; '.join(heads)}" if heads else ""))


def mean_of(values: Sequence[float], bounds: tuple[float, float] | None = None) -> Number:
    """The mean of one or more concepts' numbers with its t interval, which needs two."""
    centre = sum(values) / len(values)
    half = float(student_margin(np.array(values))) if len(values) > 1 else 0.0
    if half == 0:
        return Number(centre)
    low, high = centre - half, centre + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Number(centre, low, high)


def mean_over(found: Mapping[str, Number]) -> Number:
    """The mean of all data sets' numbers, or which of them have none."""
    values = [n.value for n in found.values() if n.value is not None]
    without = [dataset for dataset, n in found.items() if n.value is None]
    return Number(reason=f"no number for {', '.join(without)}") if without else mean_of(values)


@dataclass(frozen=True)
class Part:
    """Data sets of one domain, suite and seed; `overall` is None for a single or a repeated one."""

    groups: tuple[Group, ...]
    overall: Group | None
    repeated: tuple[str, ...]


def parts_of(records: Iterable[RunRecord]) -> list[Part]:
    """Records sorted into what may be compared, in an order that does not depend on theirs."""
    runs: dict[tuple[str, ...], dict[tuple[str, str], list[RunRecord]]] = {}
    across: dict[tuple[str, ...], list[RunRecord]] = {}
    for r in records:
        quick = "quick" if r.suite.quick else ""
        run = (r.domain_kind, r.suite.name, f"{r.suite.version:09d}", quick, f"{r.seed:020d}")
        if r.kind == "comparison" and r.dataset == ALL:
            across.setdefault(run, []).append(r)
        else:
            place = (r.dataset, r.dataset_revision)
            runs.setdefault(run, {}).setdefault(place, []).append(r)
    return [_part(runs[run], across.get(run, [])) for run in sorted(runs)]


def _part(datasets: Mapping[tuple[str, str], list[RunRecord]], across: list[RunRecord]) -> Part:
    groups = tuple(Group(datasets[place]) for place in sorted(datasets))
    names = [name for name, _ in sorted(datasets)]
    repeated = tuple(sorted({n for n in names if names.count(n) > 1}))
    overall = None
    if len(names) > 1 and not repeated:
        own = [r for g in groups for r in g.records if r.kind != "comparison"]
        overall = Group([*own, *across], across=True)
    return Part(groups, overall, repeated)
