"""Every column of every table: what it is called, how it is shown, and where its value is read.

Tables in the terminal, leaderboard pages, the HTML report and the exports all take their columns
from here. A metric that a plug-in registers needs no entry: its declaration (`MetricInfo`) makes
its column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np

from casl_bench.analysis.significance import is_significant
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.metrics.equal_effect import precision
from casl_bench.metrics.metric import METRICS
from casl_bench.metrics.scorer_validation import leakage_share
from casl_bench.report.grouping import (
    NOT_DONE,
    Group,
    Number,
    Over,
    Row,
    mean_of,
    mean_over,
    over_concepts,
)
from casl_bench.report.markdown import DASH, Footnotes, Markdown, escape, number, table
from casl_bench.results.record import (
    Comparison,
    Kind,
    LevelResult,
    Measurement,
    Pair,
    RunRecord,
    Standing,
)

T = TypeVar("T", contravariant=True)
Better = Literal["higher", "lower"]
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table whose rows are made of items of type T.

    Attributes:
        name: in exports.
        label: in headings, without the arrow.
        of: the value, or text, which is escaped here unless it is `Markdown`.
        better: which direction is; None where neither is.
        over: how the numbers of several concepts become one.
        bounds: least and largest possible value.
        interval: whether a value is shown with its interval.
        text: whether it is one of the text columns at the left of a table.
        note: one sentence for readers.
    """

    name: str
    label: str
    of: Callable[[T], Number | str]
    digits: int = 2
    better: Better | None = None
    over: Over = "mean"
    bounds: tuple[float, float] | None = None
    interval: bool = True
    text: bool = False
    note: str = ""

    @property
    def header(self) -> str:
        """The label with an arrow that points where better is."""
        return self.label + _ARROWS[self.better]

    def cell(self, item: T, notes: Footnotes) -> str:
        """As a table shows it; the reason of a missing value becomes a note."""
        found = self.of(item)
        if isinstance(found, str):
            return escape(found)
        return shown(found, notes, self.digits, self.interval)


def shown(found: Number, notes: Footnotes, digits: int = 2, interval: bool = True) -> Markdown:
    """Value and interval, or a dash, with its reason where there is one."""
    if found.value is None:
        return notes.mark(found.reason) if found.reason else Markdown(DASH)
    text = number(found.value, digits)
    if interval and found.low is not None and found.high is not None:
        text += f" [{number(found.low, digits)}, {number(found.high, digits)}]"
    return Markdown(text)


def table_of(columns: Sequence[Column[T]], items: Iterable[T]) -> str:
    """A markdown table, one row per item, with its footnotes."""
    notes = Footnotes()
    rows = [[column.cell(item, notes) for column in columns] for item in items]
    text_columns = sum(column.text for column in columns)
    return notes.under(table([escape(c.header) for c in columns], rows, text_columns))


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Known names first, in their order; then others by name."""
    places = {name: place for place, name in enumerate(known)}
    return sorted(set(names), key=lambda n: (places.get(n, len(places)), n))


# Measurements of edits.

_OLD_NAMES = {
    "off_target_flips_per_flip": "flip_precision",
    "identity_drift": "identity_guard",
    "perceptual_drift": "perceptual_guard",
}
"""Measurement → its name in records of older versions."""


def measurement(record: RunRecord, name: str) -> Measurement | None:
    """A record's measurement; also under the name that older versions gave it."""
    base, at, classifier = name.partition("@")
    old = _OLD_NAMES.get(base, base) + at + classifier
    return record.measurements.get(name) or record.measurements.get(old)


_SHARES = frozenset({"flip_rate", "wrong_way_rate", "precise_edits", "precise_edit_rate"})


def _metric(
    name: str, label: str, better: Better | None, note: str = "", digits: int = 2
) -> Column[RunRecord]:
    share = (0.0, 1.0) if name in _SHARES else None
    return Column(
        name, label, lambda record: Number.of(measurement(record, name)), digits, better,
        bounds=share, note=note,
    )  # fmt: skip


_UP: Better = "higher"
_DOWN: Better = "lower"
EDITS = (
    _metric(
        "precise_edits",
        "precise edits",
        _UP,
        "share of images that change as asked and in "
        "nothing else, mean over tolerances; at the strength best on validation images",
        3,
    ),
    _metric(
        "precise_edit_rate",
        "precise at 0.25",
        _UP,
        "the same at one tolerance: nothing else "
        "goes more than a quarter of the way to another image",
        3,
    ),
    _metric("epr_plus", "EPR+", _UP, "EPR divided by what random directions get; 1 is chance"),
    _metric("epr_floored", "EPR (noise-floored)", _UP, "target change over other changes"),
    _metric("epr_raw", "EPR raw", _UP, "EPR as the paper defines it, logits not standardised"),
    _metric("epr_over_random", "÷ random", _UP, "EPR over that of the matched random control"),
    _metric("worst_attribute_epr", "EPR, worst attribute", _UP, "over the most damaged attribute"),
    _metric("factor_epr", "EPR, factors", _UP, "EPR of the factors that the image was made from"),
    _metric("off_target_flips_per_flip", "off-target flips per flip", _DOWN),
    _metric("signed_target_change", "target change (σ)", _UP, "of the logit, as asked"),
    _metric("flip_rate", "flip rate", _UP, "share of images whose target is on after, not before"),
    _metric("wrong_way_rate", "wrong way", _DOWN, "share of images that moved the other way"),
    _metric("mean_collateral", "collateral (σ)", _DOWN, "mean change of the other attributes"),
    _metric("clip_similarity", "CLIP direction", _UP, "cosine of changes of image and text"),
    _metric("perceptual", "perceptual", _DOWN, "distance of edit and reconstruction", 3),
    _metric("identity", "identity", _UP, "likeness of the subject to the reconstruction", 3),
    _metric("pixel_locality", "locality", _UP, "share of the change where it belongs"),
    _metric("precision_area", "area", _UP, "under precision against effect"),
)
"""Of the table of edits, in order."""
_BY_NAME = {column.name: column for column in EDITS}
PRECISE_EDITS = _BY_NAME["precise_edits"]
EPR_PLUS, EPR_FLOORED, EPR_RAW = (_BY_NAME[f"epr_{n}"] for n in ("plus", "floored", "raw"))
TARGET_CHANGE, FLIP_RATE = _BY_NAME["signed_target_change"], _BY_NAME["flip_rate"]
OVER_RANDOM = _BY_NAME["epr_over_random"]

BY_CLASSIFIER = (EPR_PLUS, EPR_FLOORED, TARGET_CHANGE, FLIP_RATE)
BY_CONCEPT = (
    PRECISE_EDITS, EPR_PLUS, EPR_FLOORED, EPR_RAW, OVER_RANDOM, TARGET_CHANGE, FLIP_RATE,
    _BY_NAME["wrong_way_rate"],
)  # fmt: skip
BY_DATASET = EPR_FLOORED
"""Shown of each data set too, in tables over several."""

_WHERE_RUN = frozenset({"epr_over_random"})
"""Means over the concepts on which a matched control was run, which are not all of them."""
_NOT_IN_TABLES = frozenset(
    {
        "best_strength",
        "epr_std",
        "epr_signed",
        "identity_drift",
        "perceptual_drift",
        *_OLD_NAMES.values(),
    }
)


def edit_columns(
    records: Iterable[RunRecord], of: Sequence[Column[RunRecord]] = EDITS
) -> list[Column[RunRecord]]:
    """Those of the columns that any edit has measured, then those of plug-ins' metrics."""
    units: dict[str, str] = {}
    for record in records:
        for name, found in record.measurements.items():
            if found.status != "missing" and "@" not in name:
                units.setdefault(name, found.unit)
    ours = [c for c in of if c.name in units or _OLD_NAMES.get(c.name) in units]
    others = units.keys() - {c.name for c in EDITS} - _NOT_IN_TABLES
    return ours + [_plug_in(name, units[name]) for name in sorted(others)]


def _plug_in(name: str, unit: str) -> Column[RunRecord]:
    """The column of a plug-in's metric, by its declaration if it is registered here."""
    if name not in METRICS.names():
        return _metric(name, name.replace("_", " "), None)
    info = METRICS.create(name).info
    better = {True: _UP, False: _DOWN, None: None}[info.higher_is_better]
    low, high = info.bounds
    label = info.title + {"sd": " (σ)", "dB": " (dB)"}.get(unit or info.unit, "")
    bounds = None if low is None or high is None else (low, high)
    return replace(_metric(name, label, better), bounds=bounds)


def at_classifier(column: Column[RunRecord], classifier: str) -> Column[RunRecord]:
    """The same measurement by another classifier than the primary one."""
    name = f"{column.name}@{classifier}"
    of = _metric(name, "", None).of
    return replace(column, name=name, label=f"{column.label}, {classifier}", of=of)


_FLAGS = {
    "perceptual guard": "perceptual drift",
    "identity guard": "identity drift",
    "one judge only": "one classifier only",
}


def flag(name: str) -> str:
    """A flag as it is shown; records of older versions have other names for some."""
    return _FLAGS.get(name, name)


# What a cell cost.


def edit_seconds(record: RunRecord) -> float | None:
    """Wall time of one edit of one image at one strength; None where it was not measured."""
    images = max((m.n for m in record.measurements.values()), default=0)
    edits = images * len(record.strengths)
    seconds = record.provenance.seconds.get("edit")
    return seconds / edits if seconds is not None and edits else None


def _measured(of: Callable[[RunRecord], float | None]) -> Callable[[RunRecord], Number]:
    return lambda r: Number(reason="not measured") if (v := of(r)) is None else Number(v)


def _of_fit(of: Callable[[RunRecord], float | None]) -> Callable[[RunRecord], Number]:
    """Of a fit of its own, which a matched control does not have."""
    known = _measured(of)
    return lambda record: Number() if record.beside else known(record)


PARAMETERS: Column[RunRecord] = Column(
    "parameters", "parameters", _measured(lambda r: r.cost.parameters), 0, over="largest",
    note="numbers learned for a concept; the largest of the concepts",
)  # fmt: skip
FIT_CALLS: Column[RunRecord] = Column(
    "unet_calls", "U-Net calls, fit", _measured(lambda r: r.cost.unet_calls), 0,
    note="passes of a concept's fit, in images",
)  # fmt: skip
FIT_SECONDS: Column[RunRecord] = Column(
    "fit_seconds", "fit (s)", _of_fit(lambda r: r.provenance.fit_seconds), 1,
    note="wall time of a concept's fit",
)  # fmt: skip
FIT_MEMORY: Column[RunRecord] = Column(
    "fit_peak_memory_mb", "peak memory (MB)", _of_fit(lambda r: r.provenance.fit_peak_memory_mb),
    0, over="largest", note="most memory held during the fit; the largest of the concepts",
)  # fmt: skip
EDIT_CALLS: Column[RunRecord] = Column(
    "edit_unet_calls", "U-Net calls, edit", _measured(lambda r: r.cost.edit_unet_calls), 1,
    note="passes of one edit of one image at one strength",
)  # fmt: skip
EDIT_SECONDS: Column[RunRecord] = Column(
    "edit_seconds", "edit (s)", _measured(edit_seconds), 3,
    note="wall time of one edit of one image at one strength",
)  # fmt: skip


# Columns of methods: means over concepts, and numbers of a method as a whole.


def over(
    column: Column[RunRecord], *, dataset: str | None = None, interval: bool = True
) -> Column[Row]:
    """A column of cells as one of methods: over all concepts, or those of one data set."""

    def of(row: Row) -> Number:
        found = row.each(column.of)
        if dataset is not None:
            found = {c: n for c, n in found.items() if c in row.group.datasets[dataset]}
        if column.name in _WHERE_RUN:
            found = {c: n for c, n in found.items() if not n.missing}
        return over_concepts(found, row.group, column.over, column.bounds)

    label = column.label if dataset is None else f"{column.label}, {dataset}"
    return Column(
        column.name, label, of, column.digits, column.better, interval=interval, note=column.note
    )


METHOD: Column[Row] = Column("method", "method", lambda row: row.name, text=True)
SUPERVISION: Column[Row] = Column(
    "supervision", "supervision", lambda row: row.supervision, text=True,
    note="what guided the fit: nothing, text, or labels",
)  # fmt: skip
CELLS: Column[Row] = Column(
    "cells", "cells", lambda row: f"{len(row.done)}/{len(row.concepts)}",
    note="finished / expected",
)  # fmt: skip


def at_level(name: str, title: str) -> list[Column[Row]]:
    """What edits did at one level of effect: concepts that reach it, EPR raw, EPR+, precision."""

    def means(
        of: Callable[[LevelResult], float | None], missed: Number, back: Callable[[float], float]
    ) -> Callable[[Row], Number]:
        def one(record: RunRecord) -> Number:
            level = next((x for x in record.levels if x.name == name), None)
            if level is None or level.status == "reached":
                return Number() if level is None else Number(of(level))
            return missed

        def mean(row: Row) -> Number:
            found = over_concepts(row.each(one), row.group)
            return Number() if found.value is None else Number(back(found.value))

        return mean

    def reached(row: Row) -> str:
        own = [x.status for r in row.done.values() for x in r.levels if x.name == name]
        return f"{own.count('reached')}/{len(row.concepts)}" if own else DASH

    zero, none = Number(0.0), Number()
    return [
        Column(f"reached_{name}", f"reached, {title}", reached),
        Column(f"epr_raw_{name}", "EPR raw", means(_level_epr, none, float), 2, "higher"),
        Column(f"epr_plus_{name}", "EPR+", means(_level_score, zero, signed_exp), 2, "higher"),
        Column(f"precision_{name}", "precision", means(_level_precision, zero, float), 2, "higher"),
    ]


def _at(level: LevelResult, name: str) -> float | None:
    found = level.measurements.get(name)
    return None if found is None else found.value


def _level_epr(level: LevelResult) -> float | None:
    return _at(level, EPR_RAW.name)


def _level_score(level: LevelResult) -> float | None:
    found = _at(level, EPR_PLUS.name)
    return None if found is None else signed_log(found)


def _level_precision(level: LevelResult) -> float | None:
    change, others = _at(level, TARGET_CHANGE.name), _at(level, "mean_collateral")
    if change is None or others is None:
        return None
    return float(precision(np.array(change), np.array(others)))


PROBE_K = 16
"""Latents of the probe that stands in the leaderboard, the paper's number; else the most there."""


def probe_k(group: Group) -> int | None:
    """The number of latents that the probe column is of; None where there is no probe."""
    found = {probe_name(name) for r in group.of_kind("probe") for name in r.measurements}
    ks = sorted(
        k for feature, k, shuffled in found if feature == "top_units" and k and not shuffled
    )
    return PROBE_K if PROBE_K in ks else ks[-1] if ks else None


def probe_name(name: str) -> tuple[str, int | None, bool]:
    """`top_units.k4.shuffled` → ("top_units", 4, True)."""
    feature, *rest = name.split(".")
    ks = [int(part[1:]) for part in rest if part[:1] == "k" and part[1:].isdigit()]
    return feature, ks[0] if ks else None, "shuffled" in rest


def _probe(row: Row) -> Number:
    """Mean accuracy of the probe on a method's best aligned latents."""
    group, k = row.group, probe_k(row.group)
    own = [r for r in group.of_kind("probe") if r.method == row.key.method and not row.key.control]
    if not own or k is None:
        return Number()
    found = {group.concept_of(r): Number.of(r.measurements.get(f"top_units.k{k}")) for r in own}
    return over_concepts({c: found.get(c, NOT_DONE) for c in group.concepts}, group)


def _through_sae(row: Row) -> Number:
    if not any("sae" in r.artifacts for r in row.done.values()):
        return Number()
    return _of_datasets(row.group, "sae", "sae.psnr")


def _of_datasets(group: Group, kind: Kind, name: str) -> Number:
    """Mean over the data sets of what one record has for each."""
    found = {r.dataset: Number.of(r.measurements.get(name)) for r in group.of_kind(kind)}
    return mean_over({d: found.get(d, Number()) for d in group.datasets})


BOARD: tuple[Column[Row], ...] = (
    *(over(_BY_NAME[name], interval=False)
      for name in ("epr_over_random", "flip_rate", "perceptual", "identity")),
    Column("probe", "probe", _probe, 2, "higher", interval=False),
    Column("reconstruction", "reconstruction (dB)",
           lambda row: _of_datasets(row.group, "reconstruction", "psnr"), 1, "higher",
           interval=False),
    Column("through_sae", "through SAE (dB)", _through_sae, 1, "higher", interval=False),
    *(over(c, interval=False) for c in (PARAMETERS, FIT_CALLS, EDIT_CALLS, EDIT_SECONDS)),
)  # fmt: skip
"""Of a leaderboard, behind rank and EPR+; also what its exports hold, under these names."""
LATEX = ("epr_over_random", "flip_rate", "perceptual", "identity", "unet_calls")
"""Of these, what fits a page of paper."""


MANY = 100
"""Edits of one concept that a total cost is given for."""


def _set_up(row: Row) -> dict[str, Number]:
    """Concept → seconds of its equal share of what the method needs before its first concept."""
    group, done = row.group, row.done
    inversion = {r.dataset: r.provenance.seconds.get("inversion train")
                 for r in group.of_kind("reconstruction")}  # fmt: skip
    sae = {r.dataset: r.provenance.fit_seconds for r in group.of_kind("sae")}
    found: dict[str, Number] = {}
    for dataset, concepts in group.datasets.items():
        for c in concepts:
            if c not in done:
                found[c] = NOT_DONE
                continue
            needs_sae = "sae" in done[c].artifacts
            first, second = inversion.get(dataset), sae.get(dataset) if needs_sae else 0.0
            known = first is not None and second is not None
            share = (first or 0.0) + (second or 0.0)
            found[c] = Number(share / len(concepts)) if known else Number(reason="not measured")
    return found


def _needs_no_set_up(row: Row) -> bool:
    return row.key.control or not any(n.value is not None for n in _set_up(row).values())


def _set_up_share(row: Row) -> Number:
    if _needs_no_set_up(row):
        return Number()
    return over_concepts(_set_up(row), row.group)


def _many_edits(row: Row) -> Number:
    """Set-up, fit and `MANY` edits of a concept together."""
    if _needs_no_set_up(row):
        return Number()
    set_up, fit, edit = _set_up(row), row.each(FIT_SECONDS.of), row.each(EDIT_SECONDS.of)
    return over_concepts({c: _total(set_up[c], fit[c], edit[c]) for c in set_up}, row.group)


def _total(set_up: Number, fit: Number, edit: Number) -> Number:
    if set_up.value is None or fit.value is None or edit.value is None:
        return NOT_DONE if set_up == NOT_DONE else Number(reason="not measured")
    return Number(set_up.value + fit.value + MANY * edit.value)


SHARED_COSTS: tuple[Column[Row], ...] = (
    Column("set_up_seconds", "set-up, its share (s)", _set_up_share, 1, interval=False,
           note="a concept's share of what the method needs before its first concept"),
    Column("many_edits_seconds", f"{MANY} edits of a concept (s)", _many_edits, 1,
           note="set-up, fit and edits together"),
)  # fmt: skip
COSTS: tuple[Column[Row], ...] = (
    *map(over, (PARAMETERS, FIT_CALLS, FIT_SECONDS, FIT_MEMORY, EDIT_CALLS, EDIT_SECONDS)),
)


# Columns of ranked methods.


@dataclass(frozen=True)
class Placed:
    """A row with its place among the compared methods; None where it has none."""

    row: Row
    standing: Standing | None

    @property
    def rank(self) -> str:
        """The ranks left open, such as `2–4`; empty without any."""
        if self.standing is None:
            return ""
        low, high = self.standing.rank_low, self.standing.rank_high
        return str(low) if low == high else f"{low}–{high}"


def _standing(of: Callable[[Standing], Number | str]) -> Callable[[Placed], Number | str]:
    return lambda placed: DASH if placed.standing is None else of(placed.standing)


def _interval(found: Measurement | None, digits: int = 2) -> str:
    """The ends alone."""
    if found is None or found.low is None or found.high is None:
        return DASH
    return Markdown(f"[{number(found.low, digits)}, {number(found.high, digits)}]")


def _leakage(placed: Placed) -> Number:
    """Mean share of a method's collateral that the perfect edit seems to have as well."""
    group, comparison = placed.row.group, placed.row.group.comparison
    if comparison is None:
        return Number()
    oracle, own = (
        {c: at for c, r in group.done(key).items()
         if (at := _collateral(r, comparison.level)) is not None}
        for key in (placed.row.key._replace(control=True, method="oracle"), placed.row.key)
    )  # fmt: skip
    found = [leakage_share(oracle[c], own[c]) for c in own if c in oracle]
    shares = [share for share in found if share is not None]
    return mean_of(shares, (0.0, 1.0)) if shares else Number()


def _collateral(record: RunRecord, name: str) -> float | None:
    for level in record.levels:
        if level.name == name and level.status == "reached":
            found = level.measurements.get("mean_collateral")
            return None if found is None else found.value
    return None


RANK: Column[Placed] = Column("rank", "rank", lambda placed: placed.rank or DASH, text=True)
LETTERS: Column[Placed] = Column(
    "significance_letters", "letters", _standing(lambda s: s.group), text=True,
    note="methods that share a letter are not significantly different",
)  # fmt: skip
REACHED: Column[Placed] = Column(
    "reached", "reached", _standing(lambda s: f"{s.reached}/{s.cells}"),
    note="concepts in which the method had the effect",
)  # fmt: skip


def of_row(column: Column[Row]) -> Column[Placed]:
    """A column of methods in a table of ranked ones."""
    return Column(
        column.name, column.label, lambda placed: column.of(placed.row), column.digits,
        column.better, interval=column.interval, text=column.text, note=column.note,
    )  # fmt: skip


HEADLINE: Column[Placed] = Column(
    "precise_edits", "precise edits", _standing(lambda s: Number.of(s.headline)), 3, "higher",
    bounds=(0.0, 1.0), note=PRECISE_EDITS.note,
)  # fmt: skip
HEADLINE_HERE: Column[Placed] = Column(
    "precise_edits_here", "these concepts", _standing(lambda s: _interval(s.headline_here, 3)),
    note="interval for these very concepts: other images only",
)  # fmt: skip
P_FIRST: Column[Placed] = Column(
    "p_first", "P(first)", _standing(lambda s: Number(s.p_first)),
    note="share of resamples of concepts and images in which the method is first",
)  # fmt: skip
EPR_STANDINGS: tuple[Column[Placed], ...] = (
    RANK,
    of_row(METHOD),
    LETTERS,
    of_row(SUPERVISION),
    Column("epr_plus", "EPR+", _standing(lambda s: Number.of(s.epr_plus)), 2, "higher",
           note=EPR_PLUS.note),
    Column("epr_plus_here", "EPR+, these concepts",
           _standing(lambda s: _interval(s.epr_plus_here))),
    REACHED,
    Column("wrong_way", "wrong way", _standing(lambda s: str(s.wrong_way))),
    Column("leakage_share", "scorer's own", _leakage,
           note="share of the collateral that the perfect edit seems to have as well"),
    Column("fit_sd", "between fits (sd of log)",
           _standing(lambda s: Number.of(s.fit_sd) if s.fit_sd.n > 1 else Number())),
)  # fmt: skip
_OF_EPR = {column.name: column for column in EPR_STANDINGS}
STANDINGS: tuple[Column[Placed], ...] = (
    *EPR_STANDINGS[:4],
    HEADLINE,
    HEADLINE_HERE,
    P_FIRST,
    replace(_OF_EPR["epr_plus"], interval=False),
    REACHED,
    replace(_OF_EPR["fit_sd"], label="between fits (sd)", digits=3),
)
"""Of the comparison of methods."""


def standing_columns(found: Comparison) -> tuple[Column[Placed], ...]:
    """Columns of a comparison's standings: of older records EPR+ is what ranks."""
    return EPR_STANDINGS if found.headline is None else STANDINGS


def _verdict(pair: Pair) -> str:
    if not is_significant(pair):
        return "not significantly different"
    return pair.a if (pair.difference.value or 0.0) > 0 else pair.b


PAIRS: tuple[Column[Pair], ...] = (
    Column("a", "a", lambda pair: pair.a, text=True),
    Column("b", "b", lambda pair: pair.b, text=True),
    Column("difference", "a − b, mean signed log of EPR+", lambda pair: Number.of(pair.difference)),
    Column("p_holm", "p (Holm)", lambda pair: Number(pair.p_holm), 3),
    Column("p_here", "p, these concepts", lambda pair: Number(pair.p_here), 3),
    Column("better", "better", _verdict),
)


def pair_columns(found: Comparison) -> tuple[Column[Pair], ...]:
    """Columns of a comparison's pairs."""
    if found.headline is None:
        return tuple(column for column in PAIRS if column.name != "p_here")
    shares = replace(PAIRS[2], label="a − b, share of precise edits", digits=3)
    return (*PAIRS[:2], shares, *PAIRS[3:])
