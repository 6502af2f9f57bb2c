"""What a report is made of: a run folder with pictures and scores, or a file of records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from casl_bench.cache.location import cache_of
from casl_bench.core.errors import UsageError
from casl_bench.records.comparison import ALL
from casl_bench.records.jsonl import read_jsonl
from casl_bench.records.record import RunRecord
from casl_bench.records.record_store import RecordStore
from casl_bench.reports.grouping import Group


@dataclass(frozen=True)
class Source:
    """Where a report's content comes from.

    Attributes:
        path: a run folder or a records.jsonl.
        records: one or more.
        store: of the run folder; None where records are all there is.
        cache: where artefacts of the run are looked for.
    """

    path: Path
    records: tuple[RunRecord, ...]
    store: RecordStore | None
    cache: Path

    @classmethod
    def read(cls, path: Path, cache: Path | None = None) -> Source:
        """Read a run folder or a records.jsonl.

        Args:
            path: of either.
            cache: of the run; None for its own, or the one that runs share by default.

        Raises:
            UsageError: if it holds no record.
            InvalidBenchmarkError: if a record or a file kept with one is corrupt.
        """
        store = None if path.is_file() else RecordStore(path)
        records = read_jsonl(path) if store is None else list(store)
        if not records:
            raise UsageError(
                "no records", where=str(path), mend="give a run folder or a records.jsonl"
            )
        return cls(path, tuple(records), store, cache or cache_of(path))


@dataclass(frozen=True)
class Part:
    """Data sets of one world, suite and seed: what a report shows beside each other.

    Attributes:
        groups: one a data set and revision.
        across: records that compare methods over these data sets.
    """

    groups: tuple[Group, ...]
    across: tuple[RunRecord, ...]


def parts_of(records: Sequence[RunRecord]) -> list[Part]:
    """Records sorted into what may be compared, in an order that does not depend on theirs."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[RunRecord]]] = {}
    across: dict[tuple[str, ...], list[RunRecord]] = {}
    for r in records:
        suite = (r.suite.name, str(r.suite.version), "quick" if r.suite.quick else "")
        shared = (r.world, *suite, f"{r.seed:020d}")
        if r.kind == "comparison" and r.dataset == ALL:
            across.setdefault(shared, []).append(r)
        else:
            own = groups.setdefault(shared, {})
            own.setdefault((r.dataset, r.dataset_revision), []).append(r)
    return [
        Part(
            tuple(Group(groups[shared][key]) for key in sorted(groups[shared])),
            tuple(across.get(shared, [])),
        )
        for shared in sorted(groups)
    ]
