"""A plan as a list of tasks: stretches of work that any process can do.

A task may be done again at any time, since what lies on disk is not made twice. None waits for
another: what several read is made by the first that needs it, while the others wait at the cache.

A process that dies leaves marks on disk of what it had begun; nothing watches it from outside. A
cell's time limit ends its process from within, by a timer thread that not even a loop in C holds
up, after a traceback has been written down.
"""

from __future__ import annotations

import contextlib
import faulthandler
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_json
from casl_bench.domains.dataset import Split
from casl_bench.runs.plan import Cell, info_of, null_work
from casl_bench.runs.suites import Shard, Suite

Kind = Literal["inversions", "sae", "dataset", "random directions", "cells", "sae quality"]


@dataclass(frozen=True)
class Task:
    """One stretch of work.

    Attributes:
        kind: "dataset" stands for its scorers and reconstruction.
        part: the split of inversions; concept and method of cells.
        cells: of the plan, in its order.
        work: estimated U-Net passes in images, of what is not shared by all cells.
        gate: a cell without whose success these are not run.
    """

    kind: Kind
    dataset: str
    part: str = ""
    cells: tuple[Cell, ...] = ()
    work: float = 0.0
    gate: Cell | None = None

    @property
    def name(self) -> str:
        """Unique within a run, and as shown to the user."""
        part = f"inversion of {self.part} images" if self.kind == "inversions" else self.part
        return f"{self.dataset} / {part or self.kind}"

    @property
    def key(self) -> str:
        """The name as that of a file."""
        return hash_json([self.kind, self.name])[:32]

    @property
    def uses_sae(self) -> bool:
        """Whether a cell reads the SAE. Its method may have a probe to be made."""
        return any(info_of(c.method).uses_sae for c in self.cells)


def make_tasks(
    suite: Suite, cells: Sequence[Cell], resolutions: Mapping[str, int]
) -> tuple[Task, ...]:
    """The tasks of a plan, what others read first; data sets of small images come first."""
    datasets = dict.fromkeys(cell.dataset for cell in cells)
    tasks: list[Task] = []
    for dataset in sorted(datasets, key=lambda name: resolutions[name]):
        own = [c for c in cells if c.dataset == dataset]
        splits: tuple[Split, ...] = ("train", "validation", "test")
        tasks += [Task("inversions", dataset, split) for split in splits]
        reads_sae = any(info_of(c.method).uses_sae for c in own)
        tasks += [Task("sae", dataset)] * reads_sae
        tasks.append(Task("dataset", dataset, "scorers"))
        tasks.append(Task("random directions", dataset, work=null_work(suite)))
        tasks += _tasks_of_cells(own)
        tasks += [Task("sae quality", dataset)] * reads_sae
    return tuple(tasks)


def _tasks_of_cells(cells: Sequence[Cell]) -> list[Task]:
    """A method on a concept with the controls matched to it; the other controls of a concept."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        group = cell.beside or ("controls" if cell.control else cell.method)
        groups.setdefault(f"{cell.concept.name} / {group}", []).append(cell)
    return [
        Task("cells", cells[0].dataset, part, tuple(own), sum(c.work for c in own))
        for part, own in groups.items()
    ]


def with_gates(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Each method's first cell decides whether its others are run."""
    first: dict[str, Cell] = {}
    gated = []
    for task in tasks:
        own = next((c for c in task.cells if not c.control and not c.fit_seed), None)
        if own is not None and (gate := first.setdefault(own.method, own)) is not own:
            task = replace(task, gate=gate)
        gated.append(task)
    return tuple(gated)


def pending(tasks: Sequence[Task], done: Collection[str]) -> tuple[Task, ...]:
    """The tasks with something left to do, and what these share.

    Records of a whole data set stay: whether they are there is quickly asked where they are made.
    `done` are keys of the cells that are done, and their probes with them.
    """
    left = [t for t in tasks if any(c.key not in done for c in t.cells)]
    of_dataset = [t for t in tasks if t.kind in ("dataset", "random directions", "sae quality")]
    return _with_what_they_read(tasks, left, of_dataset)


def part_of(tasks: Sequence[Task], shard: Shard) -> tuple[Task, ...]:
    """The tasks of one part, with what they read: no part has more than its share and one task."""
    owners = owners_of(tasks, shard.count)
    return _with_what_they_read(tasks, [t for t in tasks if owners.get(t.name) == shard.index])


def owners_of(tasks: Sequence[Task], count: int) -> dict[str, int]:
    """Name of each task that only one part runs → that part, from 1; the same on every machine."""
    own = [t for t in tasks if t.cells or t.kind == "random directions"]
    unit = 1.0  # added to every task, so that those without U-Net passes count
    total = sum(t.work + unit for t in own)
    owners, before = {}, 0.0
    for task in own:
        middle = (before + (task.work + unit) / 2) / total
        owners[task.name] = min(int(middle * count), count - 1) + 1
        before += task.work + unit
    return owners


def _with_what_they_read(
    tasks: Sequence[Task], readers: Sequence[Task], others: Sequence[Task] = ()
) -> tuple[Task, ...]:
    """These tasks and those that make what the readers read, in order."""
    names = {t.name for t in (*readers, *others)}
    datasets = {t.dataset for t in readers}
    with_sae = {t.dataset for t in readers if t.uses_sae}
    needed: dict[Kind, set[str]] = {
        "inversions": datasets, "dataset": datasets, "sae": with_sae, "sae quality": with_sae
    }  # fmt: skip
    return tuple(t for t in tasks if t.name in names or t.dataset in needed.get(t.kind, ()))


ATTEMPTS = 2
"""A cell is begun at most this often in one run, and once where it has passed its time limit."""


class CellDiedError(RuntimeError):
    """The process that ran this cell died."""


class CellTimeoutError(RuntimeError):
    """The cell passed its time limit."""


class Attempts:
    """Marks in a run folder: a file for each thing that was begun, one byte for each time."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "attempts"

    def clear(self) -> None:
        """Forget everything: a new run gives every cell its chances again."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def tidy(self) -> None:
        """Remove everything but the tracebacks of cells that hung."""
        for path in self.folder.glob("*"):
            if path.suffix != ".trace" or not path.stat().st_size:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def count(self, key: str) -> int:
        """How often something was begun and not ended."""
        path = self.folder / key
        return path.stat().st_size if path.is_file() else 0

    def fault(self, key: str, limit: float | None) -> Exception | None:
        """Why a cell is not to be begun again within its limit of seconds; None where it may be."""
        trace = self.folder / f"{key}.trace"
        if limit is not None and trace.is_file() and trace.stat().st_size:
            return CellTimeoutError(f"not done after {limit:g} s; traceback: attempts/{trace.name}")
        if self.count(key) >= ATTEMPTS:
            return CellDiedError(f"its process died {ATTEMPTS} times, perhaps for want of memory")
        return None

    def end(self, key: str) -> None:
        """Forget a mark: what was begun has ended."""
        (self.folder / key).unlink(missing_ok=True)

    @contextmanager
    def begun(self, key: str, limit: float | None = None) -> Iterator[None]:
        """Mark something as begun until the block ends; end the process after `limit` seconds."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / key).open("ab") as mark:
                mark.write(b".")
        except OSError as error:
            raise UsageError(f"cannot write: {error.strerror}", where=str(self.folder)) from error
        try:
            if limit is None:
                yield
                return
            path = self.folder / f"{key}.trace"
            with path.open("w") as trace:
                faulthandler.dump_traceback_later(limit, file=trace, exit=True)
                try:
                    yield
                finally:
                    faulthandler.cancel_dump_traceback_later()
            path.unlink()
        finally:
            self.end(key)
