"""A finished run → a file among the published records; all of it, or nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from casl_bench.comparison.controls import check_bounds
from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import read_json
from casl_bench.leaderboard.boards import RESERVED
from casl_bench.leaderboard.expected import Expected, expected_of
from casl_bench.leaderboard.submission import early_faults, faults_of
from casl_bench.records.comparison import ALL
from casl_bench.records.jsonl import jsonl_files, jsonl_stem, read_jsonl, write_jsonl
from casl_bench.records.record import RunRecord
from casl_bench.records.record_store import RecordStore

_SHOWN = 8
"""Reasons that a refusal gives."""

_MANIFEST = "manifest.json"


def submit(source: Path, folder: Path, *, name: str | None = None, dry_run: bool = False) -> Path:
    """Check records and add them to the published ones.

    Args:
        source: a run folder or a file of records.
        folder: of the published record files.
        name: of the new file, without ending; default what it is of.
        dry_run: check only.

    Returns:
        The new file, or with `dry_run` what it would be.

    Raises:
        UsageError: if there is nothing to add, or the name is taken or unfit.
        InvalidBenchmarkError: with the reasons why the records may not be published.
    """
    records = _read(source)
    _refuse(early_faults(records), source)
    expected = expected_of(records)
    name = _default_name(records, expected) if name is None else name
    target = folder / f"{_checked_name(name)}.jsonl.gz"
    published = jsonl_files(folder)
    if taken := [path for path in published if jsonl_stem(path) == name]:
        raise UsageError(
            "there are records of this name already",
            where=str(taken[0]),
            mend="give --name another name, or remove the file first if these are to replace it",
        )
    known = [r.record_id for path in published for r in read_jsonl(path)]
    faults = faults_of(records, expected, known)
    if source.is_dir() and not faults:
        faults = _manifest_faults(source / _MANIFEST, expected)
    _refuse(faults, source)
    check_bounds(records, source)
    if not dry_run:
        write_jsonl(target, records)
    return target


def _refuse(faults: Sequence[str], source: Path) -> None:
    """Raises InvalidBenchmarkError where there is a fault."""
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InvalidBenchmarkError(
            f"not to be published: {'; '.join(faults[:_SHOWN])}{more}",
            where=str(source),
            mend="nothing was added; docs/leaderboards.md says what records must be",
        )


def _read(source: Path) -> list[RunRecord]:
    records = list(RecordStore(source)) if source.is_dir() else read_jsonl(source)
    if not records:
        raise UsageError(
            "no records", where=str(source), mend="give a run folder or its records.jsonl"
        )
    return sorted(records, key=lambda r: (r.dataset, r.kind, r.method or "", r.beside or "",
                                          r.concept or "", r.fit_seed))  # fmt: skip


def _default_name(records: Sequence[RunRecord], expected: Expected) -> str:
    """Such as `all-standard-v3-seed0` or `rendered_faces-standard-v3-seed1`."""
    datasets = sorted({r.dataset for r in records} - {ALL})
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
            f"'{name}' is no name for a file of records", mend="use letters, digits and -_.+"
        )
    return name


def _manifest_faults(path: Path, expected: Expected) -> list[str]:
    """A run folder tells all settings of its suite: they must be today's, not only its version."""
    try:
        suite = read_json(path)["key"]["suite"]
        name = suite["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{path.name} cannot be read"]
    if hash_json(suite) != expected.suite_hash:
        return [f"suite '{name}' of the run folder has other settings than today's"]
    return []
