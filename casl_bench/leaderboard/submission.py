"""What a file of records must be before it is published, ours and others' alike.

Every check returns what is wrong as sentences; none of them knows who measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from casl_bench.leaderboard.boards import mixed
from casl_bench.leaderboard.consistency import inconsistencies
from casl_bench.leaderboard.expected import Expected
from casl_bench.leaderboard.plausibility import implausible
from casl_bench.records.comparison import ALL
from casl_bench.records.record import SCHEMA_VERSION, RunRecord
from casl_bench.records.record_store import CellKey
from casl_bench.reports.grouping import Group

Records = Sequence[RunRecord]


def early_faults(records: Records) -> list[str]:
    """What needs no knowledge of the suite: records of one run that measure something."""
    runs = {(r.world, r.suite.name, r.suite.version, r.suite.quick, r.seed) for r in records}
    if len(runs) > 1:
        shown = "; ".join(f"world {w}, suite {n} v{v}, seed {s}" for w, n, v, _, s in sorted(runs))
        return [f"records of several runs: {shown}"]
    if records[0].suite.quick:
        return [f"suite '{records[0].suite.name}' is for trying out: its numbers mean nothing"]
    old = sum(r.schema_version != SCHEMA_VERSION for r in records)
    return [f"{old} records are not of schema {SCHEMA_VERSION}"] if old else []


def faults_of(records: Records, expected: Expected, published: Sequence[str] = ()) -> list[str]:
    """Why records may not be published; empty where they may.

    Args:
        records: of one file, at least one.
        expected: what a complete run of their suite holds.
        published: ids of all records that are published already.
    """
    first = early_faults(records) or _suite(records, expected)
    if first:
        return first  # held against another suite, nothing else would mean anything
    checks: Sequence[Callable[[], list[str]]] = (
        lambda: _clean(records),
        lambda: _duplicates(records, published),
        lambda: _alike(records),
        lambda: _settings(records, expected),
        lambda: _complete(records, expected),
        lambda: implausible(records, expected.images),
        lambda: inconsistencies(records),
    )
    return [fault for check in checks for fault in check()]


def _suite(records: Records, expected: Expected) -> list[str]:
    suite = records[0].suite
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
    return faults + ([f"{unknown} records do not tell their commit"] if unknown else [])


def _duplicates(records: Records, published: Sequence[str]) -> list[str]:
    counts = Counter(CellKey.of(r) for r in records)
    twice = [_name(r) for r in records if counts[CellKey.of(r)] > 1]
    faults = [f"the same cell several times: {_listed(dict.fromkeys(twice))}"] if twice else []
    entrants = [r for r in records if r.kind == "edit" and not r.control]
    if entrants and {r.record_id for r in entrants} <= set(published):
        faults.append("all of its entrants' records are published already")
    by_scores: dict[str, set[str]] = {}
    for r in entrants:
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
        faults += [f"records of {dataset} differ in {what}" for what in mixed(Group(list(own)))]
        # The others of one concept are not those of another, and are part of an identity.
        identities = {(r.concept, *i) for r in own for i in r.metric_identities.items()}
        if len({(concept, name) for concept, name, _ in identities}) < len(identities):
            faults.append(f"records of {dataset} differ in their metrics")
    return faults


def _settings(records: Records, expected: Expected) -> list[str]:
    """Version and settings of every method that is known here."""
    faults: dict[str, None] = {}
    for r in records:
        if r.kind != "edit" or r.status != "done" or r.method is None:
            continue
        version = expected.versions.get(r.method)
        if version is None:
            continue  # a stranger's
        if r.method_version != version:
            faults[f"'{r.method}' is of version {r.method_version}, today it is {version}"] = None
        if r.method_config != expected.settings[r.method]:
            faults[f"'{r.method}' has settings that are not those of the suite"] = None
    return list(faults)


def _complete(records: Records, expected: Expected) -> list[str]:
    """Every method on every concept, every control beside it, and what a run makes once."""
    faults = [
        f"{_name(r)} failed: {r.error.message}" for r in records
        if r.status == "failed" and r.error is not None
    ]  # fmt: skip
    there = {CellKey.of(r): r for r in records}
    entrants = sorted({r.method or "" for r in records if r.kind == "edit" and not r.control})
    if not entrants:
        return [*faults, "no method but controls"]
    fits = 1 + max(r.fit_seed for r in records if r.kind == "edit" and not r.control)
    datasets = _datasets(records)
    wanted: list[CellKey] = []
    for dataset in datasets:
        seen = {r.concept for r in records if r.kind == "edit" and r.dataset == dataset}
        concepts = expected.concepts.get(dataset) or tuple(sorted(filter(None, seen)))
        for concept in concepts:
            for name in entrants:
                wanted += [CellKey(dataset, "edit", name, None, concept, f) for f in range(fits)]
                beside = expected.beside.get(name, ())
                wanted += [CellKey(dataset, "edit", c, name, concept) for c in beside]
            for name, drawn in expected.alone.items():
                again = range(expected.draws if drawn else 1)
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
            left_out = sorted(set(entrants) - {s.method for s in r.comparison.standings})
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
    method = key.method or ""
    beside = f" beside {key.beside}" if key.beside else ""
    again = f" #{key.fit_seed}" if key.fit_seed else ""
    kind = "" if key.kind == "edit" else key.kind
    return "/".join(x for x in (key.dataset, kind, f"{method}{again}{beside}", key.concept) if x)


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    """The first few, and how many more."""
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"


_SHOWN = 4
