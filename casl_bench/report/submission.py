"""What a file of records must be before it is published, ours and others' alike.

Every check returns what is wrong as sentences; none of them knows who measured.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from casl_bench.analysis.analyse import (
    NUMBERS_FILE,
    DatasetScores,
    group_cells,
    publish,
    read_numbers,
)
from casl_bench.analysis.controls import check_bounds
from casl_bench.analysis.measure import PRECISE_EDITS, flags_of
from casl_bench.analysis.significance import holm, rank_intervals
from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_json, read_json
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.metrics.metric import MetricInfo, metric_infos
from casl_bench.report.grouping import Group, RowKey
from casl_bench.report.leaderboard import (
    RESERVED,
    name_of,
    published_files,
    rejudged_file,
)
from casl_bench.results.published_scores import ENDING
from casl_bench.results.record import (
    ALL,
    SCHEMA_VERSION,
    Comparison,
    Provenance,
    RunRecord,
    SuiteRef,
)
from casl_bench.results.rejudged import FILE, Rejudged, read_rejudged, write_rejudged
from casl_bench.results.run_folder import (
    ENDINGS,
    CellKey,
    jsonl_files,
    stored_lines,
    write_jsonl,
)
from casl_bench.results.stored_cells import read_cells

# Does a comparison follow from the cells of its run?

TOLERANCE = 1e-6
"""Relative, for sums in another order."""


def _inconsistencies(records: Sequence[RunRecord]) -> list[str]:
    """What the comparisons of a run say and its cells do not, as sentences."""
    cells = {
        (f"{r.dataset}/{r.concept}", r.method or ""): r
        for r in records
        if r.kind == "edit" and not r.control and r.fit_seed == 0 and r.status == "done"
    }
    precise: dict[tuple[str, str], list[float]] = {}
    for r in records:
        value = r.measurements.get(PRECISE_EDITS)
        if r.kind == "edit" and not r.control and r.status == "done" and value is not None:
            place = f"{r.dataset}/{r.concept}", r.method or ""
            precise.setdefault(place, []).append(value.value or 0.0)
    faults = []
    for record in records:
        if record.comparison is not None:
            where = "over all data sets" if record.dataset == ALL else f"on {record.dataset}"
            found = _of_comparison(record.comparison, cells, precise)
            faults += [f"the comparison {where}: {fault}" for fault in found]
    return faults


def _of_comparison(
    comparison: Comparison,
    cells: Mapping[tuple[str, str], RunRecord],
    precise: Mapping[tuple[str, str], Sequence[float]],
) -> list[str]:
    """What a comparison says and cells (fit 0), and precise edits of all fits, do not."""
    names = [standing.method for standing in comparison.standings]
    means: dict[str, float] = {}
    for name in names:
        own = [cells.get((concept, name)) for concept in comparison.concepts]
        scores = [_score(r, comparison.level) for r in own if r is not None]
        known = [s for s in scores if s is not None]
        if not known or len(known) < len(comparison.concepts):
            return [f"'{name}' has cells without the level {comparison.level}"]
        means[name] = sum(known) / len(known)
    faults = []
    for s in comparison.standings:
        done = [cells[concept, s.method] for concept in comparison.concepts]
        status = Counter(x.status for r in done for x in r.levels if x.name == comparison.level)
        counts = (status["reached"], status["wrong_way"], len(done))
        if (s.reached, s.wrong_way, s.cells) != counts:
            faults.append(
                "'{}' reached {}, {} the wrong way, of {} cells".format(s.method, *counts)
            )
    faults += [
        f"EPR+ of '{s.method}' is {s.epr_plus.value}, of its cells {signed_exp(means[s.method])}"
        for s in comparison.standings
        for value in (s.epr_plus.value, s.epr_plus_here.value)
        if value is None or not _same(signed_log(value), means[s.method])
    ]
    if comparison.headline is not None:
        means = {}
        for s in comparison.standings:
            of_fits = [precise.get((c, s.method), ()) for c in comparison.concepts]
            values = [sum(fits) / len(fits) for fits in of_fits if fits]
            means[s.method] = sum(values) / len(values) if values else math.nan
            for found in (s.headline, s.headline_here):
                if found is None or found.value is None or not _same(found.value, means[s.method]):
                    faults.append(f"precise edits of '{s.method}' are not those of its cells")
    for pair in comparison.pairs:
        gap = means.get(pair.a, math.nan) - means.get(pair.b, math.nan)
        if pair.difference.value is None or not _same(pair.difference.value, gap):
            faults.append(f"the difference of '{pair.a}' and '{pair.b}' is not that of their cells")
    return faults or _of_ranks(comparison, means)


def _of_ranks(comparison: Comparison, means: Mapping[str, float]) -> list[str]:
    adjusted = holm([pair.p for pair in comparison.pairs])
    for pair, p in zip(comparison.pairs, adjusted, strict=True):
        if (p is None) != (pair.p_holm is None) or not _same(p or 0.0, pair.p_holm or 0.0):
            return [f"p of '{pair.a}' and '{pair.b}' is not Holm's"]
    try:
        ranks = rank_intervals(means, comparison.pairs)
    except InputError as error:
        return [str(error)]
    wanted = {r.method: (r.low, r.high, r.letters) for r in ranks}
    return [
        "'{}' has ranks {} to {} ({}), its pairs leave open {} to {} ({})".format(
            s.method, s.rank_low, s.rank_high, s.group, *wanted[s.method]
        )
        for s in comparison.standings
        if (s.rank_low, s.rank_high, s.group) != wanted[s.method]
    ]


def _score(record: RunRecord, name: str) -> float | None:
    """A cell's score as comparisons have it: 0 where the effect is not reached."""
    level = next((x for x in record.levels if x.name == name), None)
    if level is None:
        return None
    if level.strength is None:
        return 0.0
    measured = level.measurements.get("epr_plus")
    return None if measured is None or measured.value is None else signed_log(measured.value)


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


# What a complete run of a suite holds.


@dataclass(frozen=True)
class Expected:
    """What records are held against; data sets and methods that are not known here are absent.

    Attributes:
        suite_version: today's of the suite; None where there is no such suite.
        suite_hash: of all its settings, as in a run folder's manifest.
        images: test images per concept, at most.
        draws: cells of each control that is run several times.
        concepts: data set → its concepts.
        every_dataset: all data sets that the suite is meant for.
        alone: control of every concept → whether it is run several times.
        beside: method → controls matched to it.
        matched_concepts: on how many concepts of a data set these are run.
        single_fit: methods whose fit takes no random number, so that there is only one.
        fields_of: record → those of its fields that are known here, with their values: of its data
            set (revision, hashes of models), its method (version, settings, supervision) or both.
    """

    suite_version: int | None
    suite_hash: str
    images: int
    draws: int
    concepts: Mapping[str, tuple[str, ...]]
    every_dataset: tuple[str, ...]
    alone: Mapping[str, bool]
    beside: Mapping[str, tuple[str, ...]]
    matched_concepts: int = 0
    single_fit: frozenset[str] = frozenset()
    fields_of: Callable[[RunRecord], Mapping[str, Any]] = lambda record: {}


# Values that no measurement can have, whatever the method.

_RANGES = {"share": (0.0, 1.0), "fraction": (0.0, 1.0), "cosine": (-1.0, 1.0), "dB": (0.0, 200.0)}
"""By unit, of what no metric declares. 8-bit pictures that are equal have no more dB than this."""

MOST_SD = 100.0
"""No attribute moves by so many standard deviations of its logit over real images."""


def _implausible(
    record: RunRecord, images: int, declared: Mapping[str, MetricInfo]
) -> Iterator[str]:
    """Values that are impossible, or of more images than the suite has, as sentences.

    A metric's bounds, unit and version are those that it declares, not those that a record says.
    """
    what = "/".join(x for x in (record.dataset, record.method or record.kind, record.concept) if x)
    of_levels = [item for level in record.levels for item in level.measurements.items()]
    for name, found in (*record.measurements.items(), *of_levels):
        if found.value is None:
            continue
        info = declared.get(name.split("@")[0])
        if info is not None and found.unit != info.unit:
            yield f"{what}: {name} is in '{found.unit}', not in '{info.unit}'"
            continue
        low, high = _range(found.unit, info)
        if not low - TOLERANCE <= found.value <= high + TOLERANCE:
            yield f"{what}: {name} is {found.value:g}, outside [{low:g}, {high:g}]"
        if record.kind == "edit" and found.n == 0:
            yield f"{what}: {name} is of no image"
        if record.kind == "edit" and found.n > images:
            yield f"{what}: {name} is of {found.n} images, the suite has {images}"
    for attribute, drift in record.drift.items():
        if drift is not None and abs(drift) > MOST_SD:
            yield f"{what}: off-target shift of {attribute} is {drift:g} σ"

    for name, version in record.metric_versions.items():
        if name in declared and version != declared[name].version:
            yield f"{what}: {name} is of version {version}, here of {declared[name].version}"


def _range(unit: str, info: MetricInfo | None) -> tuple[float, float]:
    low, high = _RANGES.get(unit, (None, None)) if info is None else info.bounds
    most = MOST_SD if unit == "sd" else math.inf
    return -most if low is None else low, most if high is None else high


Records = Sequence[RunRecord]


def early_faults(records: Records) -> list[str]:
    """What needs no knowledge of the suite: records of one run that measure something."""
    runs = {(r.domain_kind, r.suite.name, r.suite.version, r.suite.quick, r.seed) for r in records}
    if len(runs) > 1:
        shown = "; ".join(f"domain {w}, suite {n} v{v}, seed {s}" for w, n, v, _, s in sorted(runs))
        return [f"records of several runs: {shown}"]
    if records[0].suite.quick:
        return [f"suite '{records[0].suite.name}' is for trying out: its numbers mean nothing"]
    old = sum(r.schema_version != SCHEMA_VERSION for r in records)
    return [f"{old} records are not of schema {SCHEMA_VERSION}"] if old else []


def faults_of(records: Records, expected: Expected, published: Records = ()) -> list[str]:
    """Why a file's records may not be published, given all published ones; else empty."""
    first = early_faults(records) or other_suite(records[0].suite, expected)
    if first:
        return first  # held against another suite, nothing else would mean anything
    declared = {info.name: info for info in metric_infos()}
    checks: Sequence[Callable[[], list[str]]] = (
        lambda: _clean(records),
        lambda: _duplicates(records, published),
        lambda: _alike(records),
        lambda: _derived(records, expected),
        lambda: _complete(records, expected),
        lambda: [fault for r in records for fault in _implausible(r, expected.images, declared)],
        lambda: _inconsistencies(records),
    )
    return [fault for check in checks for fault in check()]


def other_suite(suite: SuiteRef, expected: Expected) -> list[str]:
    """Whether a suite is not that of today."""
    if expected.suite_version is None:
        return [f"there is no suite '{suite.name}'"]
    if suite.version != expected.suite_version:
        return [
            f"suite '{suite.name}' is of version {suite.version}, today it is "
            f"{expected.suite_version}"
        ]
    return []


def _clean(records: Records) -> list[str]:
    """A number must be one that its commit gives again."""
    changed = sum(r.provenance.git_dirty is True for r in records)
    unknown = sum(r.provenance.git_dirty is None or not r.provenance.git_commit for r in records)
    faults = [f"{changed} records were made by code with changes"] if changed else []
    faults += [f"{unknown} records do not tell their commit"] if unknown else []
    # What is written by hand here often shows; see docs/leaderboards.md for what does not.
    odd = {f"{_name(r)}: {what}" for r in records for what in odd_provenance(r.provenance)}
    return faults + ([f"provenance cannot be: {_listed(sorted(odd))}"] if odd else [])


_LONGEST = 366 * 86400.0
"""Seconds that nothing takes."""


def odd_provenance(found: Provenance) -> Iterator[str]:
    """What no commit, time or span of a run can be."""
    if found.git_commit and not re.fullmatch("[0-9a-f]{40}([0-9a-f]{24})?", found.git_commit):
        yield f"'{found.git_commit[:40]}' is no commit"
    begun: datetime | None = None
    with contextlib.suppress(ValueError):
        begun = datetime.fromisoformat(found.started_at)
    if begun is None or begun.tzinfo is None:
        yield f"'{found.started_at[:40]}' is no time with a time zone"
    elif begun > datetime.now(UTC) + timedelta(days=1):
        yield f"'{found.started_at}' is yet to come"
    spans = {**found.seconds, "fit": found.fit_seconds or 0.0}
    yield from (
        f"{what} took {span:g} s" for what, span in spans.items() if not 0 <= span <= _LONGEST
    )
    if not found.argv:
        yield "no command"


def _duplicates(records: Records, published: Records) -> list[str]:
    counts = Counter(CellKey.of(r) for r in records)
    twice = [_name(r) for r in records if counts[CellKey.of(r)] > 1]
    faults = [f"the same cell several times: {_listed(dict.fromkeys(twice))}"] if twice else []
    of_methods = [r for r in records if r.kind == "edit" and not r.control]
    if of_methods and {r.record_id for r in of_methods} <= {r.record_id for r in published}:
        faults.append("all records of its methods are published already")
    by_scores: dict[str, set[str]] = {}
    others = [r for r in published if r.kind == "edit" and not r.control]
    for r in (*of_methods, *others):
        if r.scores is not None:
            place = f"{r.dataset}/{r.method}/{r.concept}"
            by_scores.setdefault(r.scores.sha256, set()).add(place)
    same = [" and ".join(sorted(cells)) for cells in by_scores.values() if len(cells) > 1]
    if same:
        faults.append(f"cells with the very same per-image scores: {_listed(sorted(same))}")
    return faults


def _alike(records: Records) -> list[str]:
    """What all records of a data set must share."""
    faults = []
    for dataset in _datasets(records):
        own = [r for r in records if r.dataset == dataset]
        if len({r.dataset_revision for r in own}) > 1:
            faults.append(f"{dataset} in several revisions")
        faults += [f"records of {dataset} differ in {what}" for what in Group(list(own)).mixed]
        # The others of one concept are not those of another, and are part of an identity.
        identities = {(r.concept, *i) for r in own for i in r.metric_identities.items()}
        if len({(concept, name) for concept, name, _ in identities}) < len(identities):
            faults.append(f"records of {dataset} differ in their metrics")
    return faults


def _derived(records: Records, expected: Expected) -> list[str]:
    """Fields that follow from what is known here, or from the record's own numbers."""
    faults: dict[str, None] = {}
    for r in records:
        who = f"'{r.method}'" if r.kind == "edit" else r.dataset
        for name, value in expected.fields_of(r).items():
            found = getattr(r, name)
            if found != value:
                values = f"{found!r}, here {value!r}"
                shown = values if len(values) <= _SHORT else "not what it is here"
                faults[f"{name} of {who} is {shown}"] = None
        if r.kind == "edit" and r.status == "done" and r.flags != (flags := flags_of(r)):
            faults[f"{_name(r)} has the flags {list(r.flags)}, by its numbers {list(flags)}"] = None
    return list(faults)


def _complete(records: Records, expected: Expected) -> list[str]:
    """Every method on every concept, every control, and the records of whole data sets."""
    faults = [
        f"{_name(r)} failed: {r.error.message}" for r in records
        if r.status == "failed" and r.error is not None
    ]  # fmt: skip
    there = {CellKey.of(r): r for r in records}
    of_methods = [r for r in records if r.kind == "edit" and not r.control]
    if not of_methods:
        return [*faults, "no method but controls"]
    methods = sorted({r.method or "" for r in of_methods})
    fits = 1 + max(r.fit_seed for r in of_methods)
    if fits > len(of_methods):
        return [*faults, f"fit {fits - 1} of {len(of_methods)} cells of methods"]
    datasets = _datasets(records)
    wanted: list[CellKey] = []
    for dataset in datasets:
        seen = {r.concept for r in records if r.kind == "edit" and r.dataset == dataset}
        concepts = expected.concepts.get(dataset) or tuple(sorted(filter(None, seen)))
        for concept in concepts:
            for name in methods:
                own = range(1 if name in expected.single_fit else fits)
                wanted += [CellKey(dataset, "edit", name, None, concept, f) for f in own]
                matched = expected.beside.get(name, ())
                if concept in concepts[: expected.matched_concepts]:
                    wanted += [CellKey(dataset, "edit", c, name, concept) for c in matched]
            for name, repeated in expected.alone.items():
                again = range(expected.draws if repeated else 1)
                wanted += [CellKey(dataset, "edit", name, None, concept, d) for d in again]
        kinds = ("reconstruction", "scorer", "comparison")
        wanted += [CellKey(dataset, kind) for kind in kinds]  # type: ignore[arg-type]
    if len(datasets) > 1:
        wanted.append(CellKey(ALL, "comparison"))
    missing = [key for key in wanted if key not in there]
    if missing:
        faults.append(f"missing: {_listed([_key_name(key) for key in missing])}")
    skipped = [_name(r) for r in records if r.status == "skipped" and not r.control
               and r.kind == "edit"]  # fmt: skip
    if skipped:
        faults.append(f"skipped: {_listed(skipped)}")
    for r in records:
        if r.comparison is not None:
            left_out = set(methods) - {s.method for s in r.comparison.standings}
            where = set(datasets) if r.dataset == ALL else {r.dataset}
            concepts_there = {f"{k.dataset}/{k.concept}" for k in wanted
                              if k.dataset in where and k.concept}  # fmt: skip
            if left_out or set(r.comparison.concepts) != concepts_there:
                faults.append(f"the comparison of {r.dataset} is not of all methods and concepts")
    return faults


def _datasets(records: Records) -> list[str]:
    return sorted({r.dataset for r in records} - {ALL})


def _name(record: RunRecord) -> str:
    return _key_name(CellKey.of(record))


def _key_name(key: CellKey) -> str:
    """A cell in words."""
    again = f" #{key.fit_seed}" if key.fit_seed else ""
    method = RowKey(False, f"{key.method or ''}{again}", key.beside or "").name
    kind = "" if key.kind == "edit" else key.kind
    return "/".join(x for x in (key.dataset, kind, method, key.concept) if x)


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    """The first few, and how many more."""
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"


_SHOWN, _SHORT = 4, 80
"""Names that a fault lists, and characters of values that it quotes."""


# Is a re-judging that of these scores?

SAME_SHARE = 2e-3
"""Of precise edits: published scores are rounded."""


def other_rejudging(
    found: Rejudged, mine: Sequence[DatasetScores], theirs: Mapping[str, DatasetScores]
) -> list[str]:
    """Whether a re-judging is not of these very scores, or of some of their data sets alone.

    Args:
        found: the re-judging.
        mine: scores of the run.
        theirs: data set → scores that name the units, of the run itself or published ones.
    """
    faults = []
    for own in mine:
        rejudged = found.datasets.get(own.name)
        known = {} if rejudged is None else rejudged.methods
        for method, cells in own.methods.items():
            seen = known.get(method)
            if seen is None:
                if found.loss(method) is not None:
                    faults.append(f"{FILE} re-judges '{method}', but not on {own.name}")
                continue
            scored = DatasetScores((*theirs[own.name].cells, *own.edits))
            values = [scored.precise_edits(method, c, sorted(cells[c])).value for c in cells]
            if seen.concepts != len(values) or abs(seen.shipped - np.mean(values)) > SAME_SHARE:
                faults.append(
                    f"{FILE} says that '{method}' has {seen.shipped:.3f} on {own.name} over "
                    f"{seen.concepts} concepts, its scores {np.mean(values):.3f} over {len(values)}"
                )
    return faults


# A finished run → a file among the published records; all of it, or nothing.

_REASONS = 8
"""Reasons that a refusal gives."""


def submit(
    source: Path,
    folder: Path,
    expected_of: Callable[[Sequence[RunRecord]], Expected],
    *,
    name: str | None = None,
    dry_run: bool = False,
) -> Path:
    """Check records of a run folder or file, and add them to the published ones in `folder`.

    Of a run folder its scores are published, of a file of numbers these alone.

    `expected_of` says what a complete run with the records' suite, data sets and methods holds; the
    new file is named after what it is of, unless it is given a name.

    Returns:
        The new file, or with `dry_run` what it would be.

    Raises:
        UsageError: if there is nothing to add, or the name is taken or unfit.
        InvalidBenchmarkError: with the reasons why the records may not be published.
    """
    if source.name == NUMBERS_FILE and (source.parent / "cells").is_dir():
        source = source.parent  # its numbers are made anew of its scores
    records = _read(source)
    refuse(early_faults(records) or _unsealed(source), source)
    expected = expected_of(records)
    name = _default_name(records, expected) if name is None else name
    target = folder / f"{_checked_name(name)}{ENDING if source.is_dir() else '.jsonl.gz'}"
    published = [*jsonl_files(folder), *published_files(folder)]
    if taken := [path for path in published if name_of(path) == name]:
        raise UsageError(
            "there are records of this name already",
            where=str(taken[0]),
            hint="give --name another name, or remove the file first if these are to replace it",
        )
    known = [r for path in published for r in read_numbers(path)]
    faults = faults_of(records, expected, known)
    if source.is_dir() and not faults:
        faults = _manifest_faults(source / "manifest.json", expected)
    refuse(faults, source)
    rejudged = read_rejudged(source / FILE) if source.is_dir() else None
    if rejudged is not None:
        scores = group_cells(read_cells(source))
        refuse(other_rejudging(rejudged, scores, {d.name: d for d in scores}), source)
    check_bounds(records, source)
    if not dry_run and source.is_dir():
        publish([source], target)
        if rejudged is not None:
            write_rejudged(rejudged_file(target), rejudged)
    elif not dry_run:
        write_jsonl(target, records)
    return target


def _unsealed(source: Path) -> list[str]:
    """Records of a run folder or file whose provenance has no hash, by which a change shows."""
    stored: Iterator[Any] = iter(())
    if source.is_dir():
        stored = map(read_json, source.glob("cells/*/*/*/record.json"))
    elif source.name.endswith(ENDINGS):
        stored = stored_lines(source)
    count = sum("provenance_id" not in record for record in stored)
    return [f"{count} records have no hash of their provenance"] if count else []


def refuse(faults: Sequence[str], source: Path, what: str = "published") -> None:
    """Raises InvalidBenchmarkError, in one line, where there is a fault."""
    if faults:
        more = f"; and {len(faults) - _REASONS} more" if len(faults) > _REASONS else ""
        raise InvalidBenchmarkError(
            f"not to be {what}: {'; '.join(faults[:_REASONS])}{more}",
            where=str(source),
            hint="nothing was added; docs/leaderboards.md says what it must be",
        )


def _read(source: Path) -> list[RunRecord]:
    return sorted(
        read_numbers(source),
        key=lambda r: (r.dataset, r.kind, r.method or "", r.beside or "", r.concept or "",
                       r.fit_seed),
    )  # fmt: skip


def _default_name(records: Sequence[RunRecord], expected: Expected) -> str:
    """Such as `all-standard-v3-seed0` or `rendered_faces-standard-v3-seed1`."""
    datasets = _datasets(records)
    of_all = len(datasets) > 1 and datasets == sorted(expected.every_dataset)
    which = "all" if of_all else "+".join(datasets)
    first = records[0]
    return (
        re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{which}-{first.suite.name}-v{first.suite.version}")
        + f"-seed{first.seed}"
    )


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name) or name in RESERVED:
        raise UsageError(
            f"'{name}' is no name for a file of records", hint="use letters, digits and -_.+"
        )
    return name


def _manifest_faults(path: Path, expected: Expected) -> list[str]:
    """A run folder holds all settings of its suite: they must be today's, not only its version."""
    try:
        suite = read_json(path)["key"]["suite"]
        name = suite["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{path.name} cannot be read"]
    if hash_json(suite) != expected.suite_hash:
        return [f"suite '{name}' of the run folder has other settings than today's"]
    return []
