"""Parts of one run → the run, as if it had never been cut.

Records are copied whole, and methods are compared anew. Nothing is believed twice: parts of other
settings, code or plans are refused, and so is a cell that two parts tell differently. What was
merged before counts as one more part: in how many steps parts come together makes no difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casl_bench.analysis.analyse import analyse, write_numbers
from casl_bench.analysis.controls import check_bounds
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_json, read_json
from casl_bench.domains.dataset import Concept
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.merge_memory import MergeMemory
from casl_bench.runs.plan import Cell, done
from casl_bench.runs.run_lock import PLAN_FILE, claim_run_folder
from casl_bench.runs.suites import RunConfig, Shard, Suite

SHOWN = 5
"""So many missing cells are named."""


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Attributes:
        source: as it was given.
        shard: which part.
        plan: of the whole run.
        store: with its records.
    """

    source: str
    shard: Shard
    plan: dict[str, Any]
    store: RecordStore


Told = dict[CellKey, tuple[CellRecord, Part]]
"""Cell → its record, and a part that has it."""


@dataclass(frozen=True)
class Merged:
    """What came of it.

    Attributes:
        cells: of the whole plan.
        missing: labels of those that are not done, in the plan's order.
        shards: parts that were given neither now nor before, such as "2/8".
    """

    cells: int
    missing: tuple[str, ...]
    shards: tuple[str, ...]

    @property
    def text(self) -> str:
        """In one line."""
        if not self.missing:
            return f"{self.cells} cells, none missing"
        named = ", ".join(self.missing[:SHOWN])
        more = f" and {len(self.missing) - SHOWN} more" if len(self.missing) > SHOWN else ""
        absent = f"; shards not given: {', '.join(self.shards)}" if self.shards else ""
        return f"{self.cells} cells, {len(self.missing)} failed or missing: {named}{more}{absent}"


def merge(out: Path, sources: Sequence[str]) -> Merged:
    """Put parts of a run together.

    Args:
        out: run folder of the whole; may hold what an earlier merge of the same run left. A cell
            that failed or was skipped there is taken from a part that has been run again.
        sources: run folders of parts, or addresses that such were published at, see `publish`.

    Raises:
        UsageError: if the parts are not of one run, `out` is another's, or an address cannot be
            read.
        InvalidBenchmarkError: if two parts, or a part and `out`, tell a cell differently, a record
            or a fetched file is corrupt, or a control is out of its bounds.
    """
    parts = [_read_part(source, Path(source)) for source in sources]
    _check_of_one_run(parts)
    config, cells = _planned(parts[0], out)
    if True:
        with claim_run_folder(config):
            store = RecordStore(out)
            before = MergeMemory.read(out)
            if before is not None:
                _check_of_the_same_run(parts[0], before, out)
            records = _agreed(parts)
            if before is not None:
                records = _new_beside(store, records, before, {p.shard.index for p in parts})
            memory = _remember(parts, before)
            memory.write(out)
            for record, part in records.values():
                _copy(record, part.store, store)
            numbers = analyse([out])
            write_numbers(out, numbers)
            check_bounds(numbers, out)
    return Merged(
        len(cells),
        tuple(f"{c.label} of {c.dataset}" for c in cells if done(store, c) is None),
        tuple(f"{i}/{memory.count}" for i in range(1, memory.count + 1) if i not in memory.given),
    )


def _read_part(source: str, folder: Path) -> Part:
    path = folder / PLAN_FILE
    try:
        stored = read_json(path)
        return Part(source, Shard.parse(stored["shard"]), stored["plan"], RecordStore(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "no part of a run",
            where=source,
            mend="give run folders that were made with --shard",
        ) from error


def _check_of_one_run(parts: Sequence[Part]) -> None:
    """Refuse parts of several runs."""
    first = parts[0]
    for part in parts[1:]:
        where = f"{part.source} beside {first.source}"
        _check_plans(first.plan, part.plan, where, "give the parts of one command")
        if part.shard.count != first.shard.count:
            raise UsageError(
                f"one is shard {part.shard}, the other {first.shard}",
                where=where,
                mend="give the parts of one command",
            )


def _check_of_the_same_run(part: Part, before: MergeMemory, out: Path) -> None:
    """Refuse a part of another run than what was merged before."""
    where = f"{part.source} beside what {out} holds"
    mend = "give the parts of one command, or a new folder to merge into"
    _check_plans(before.plan, part.plan, where, mend)
    if part.shard.count != before.count:
        raise UsageError(
            f"it is shard {part.shard}, there are parts of {before.count}", where=where, mend=mend
        )


def _check_plans(one: dict[str, Any], other: dict[str, Any], where: str, mend: str) -> None:
    """Refuse two plans that differ."""
    fields = [k for k in one.keys() | other.keys() if one.get(k) != other.get(k)]
    if fields:
        # Cells follow from the rest, and from models and images.
        named = ", ".join(sorted(set(fields) - {"cells"})) or "models or images"
        raise UsageError(f"parts of different runs: their {named} differ", where=where, mend=mend)


def _planned(part: Part, out: Path) -> tuple[RunConfig, tuple[Cell, ...]]:
    """The whole run's configuration and cells, by what a part has kept of them."""
    plan = part.plan
    try:
        config = RunConfig(
            methods=tuple(plan["methods"]),
            datasets=tuple(plan["datasets"]),
            concepts=None if plan["concepts"] is None else tuple(plan["concepts"]),
            suite=Suite.model_validate(plan["key"]["suite"]),
            seed=plan["key"]["seed"],
            fit_seeds=plan["fit_seeds"],
            device=plan["device"],
            out=out,
        )
        cells = tuple(Cell(**{**c, "concept": Concept(**c["concept"])}) for c in plan["cells"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "its plan cannot be read", where=part.source, mend="run it by this version"
        ) from error
    return config, cells


def _agreed(parts: Sequence[Part]) -> Told:
    """Every cell's record, with the first part that has it. Comparisons are made anew.

    Raises:
        InvalidBenchmarkError: where two parts tell a cell differently.
    """
    found: Told = {}
    for part in parts:
        for key, record in _cells_of(part.store):
            known, of = found.setdefault(key, (record, part))
            if known.record_id != record.record_id:
                raise InvalidBenchmarkError(
                    f"two parts disagree on {key.path}: {_difference(known, record)}",
                    where=f"{of.source}, {part.source}",
                    mend="run one of them again, on a --cache that they share",
                )
    return found


def _new_beside(
    store: RecordStore, told: Told, before: MergeMemory, given: Collection[int]
) -> Told:
    """Of what parts tell, that which the merged folder does not have yet.

    Raises:
        InvalidBenchmarkError: where it has a cell otherwise, and not of these parts alone while
            the cell was not done.
    """
    new: Told = {}
    for key, (record, part) in told.items():
        known = store.find(key)
        if known is None or (known.status != "done" and before.may_be_replaced(key, given)):
            new[key] = (record, part)
        elif known.record_id != record.record_id:
            raise InvalidBenchmarkError(
                f"what was merged before disagrees on {key.path}: {_difference(known, record)}",
                where=f"{store.run}, {part.source}",
                mend="run that part again, on a --cache that all share, or merge all parts into a "
                "new folder",
            )
    return new


def _remember(parts: Sequence[Part], before: MergeMemory | None) -> MergeMemory:
    """What the merged folder is to keep of these parts, and of those before."""
    first = parts[0]
    memory = before or MergeMemory(plan=first.plan, count=first.shard.count, given=(), undone={})
    for part in parts:
        undone = [key for key, record in _cells_of(part.store) if record.status != "done"]
        memory = memory.and_also(part.shard.index, undone)
    return memory


def _cells_of(store: RecordStore) -> Iterator[tuple[CellKey, CellRecord]]:
    """All records, by place."""
    return ((CellKey.of(record), record) for record in store)


def _difference(one: CellRecord, other: CellRecord) -> str:
    if one.status != other.status:
        return f"{one.status} and {other.status}"
    mine, theirs = one.comparable(), other.comparable()
    fields = sorted(k for k in mine if hash_json(mine[k]) != hash_json(theirs.get(k)))
    return f"their {', '.join(fields)} differ"


def _copy(record: CellRecord, source: RecordStore, target: RecordStore) -> None:
    folder = source.folder(CellKey.of(record))
    refs = [
        ref for ref in (record.scores, record.validation_scores, record.images) if ref is not None
    ]
    target.write(record, {ref.file: (folder / ref.file).read_bytes() for ref in refs})
