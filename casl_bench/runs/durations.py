"""How long the tasks of a run take, as earlier runs on this machine have shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from casl_bench.core.errors import BenchError
from casl_bench.core.files import read_json, write_json
from casl_bench.runs.progress import Status
from casl_bench.runs.suites import Suite
from casl_bench.runs.tasks import Attempts, Task

FILE = "task_seconds.json"
_FORMAT = TypeAdapter(dict[str, float])
_FROM_CACHE = 0.3
"""A task that took less than this share of what it takes was read from the cache."""


class Durations:
    """Seconds per unit of work of each kind of task: what earlier runs took.

    A task's work is U-Net passes, or 1 where it makes what all cells share. What is in the file
    decides no number of a run: where it cannot be read or written, nothing is known.
    """

    def __init__(self, cache: Path) -> None:
        self._path = cache / FILE
        try:
            self._known = _FORMAT.validate_python(read_json(self._path))
        except (OSError, ValueError, ValidationError):
            self._known = {}

    def seconds(self, suite: Suite, task: Task, work: float) -> float | None:
        """Of a task, so much of whose work is left; None where nothing like it was ever run."""
        for key in _keys(suite, task):
            if key in self._known:
                return self._known[key] * max(work, 1.0)
        return None

    def note(self, suite: Suite, task: Task, work: float, seconds: float) -> None:
        """Learn from a task that has just ended."""
        rate = seconds / max(work, 1.0)
        for key in _keys(suite, task):
            known = self._known.get(key)
            if known is None or rate > known:
                self._known[key] = rate
            elif rate > _FROM_CACHE * known:
                self._known[key] = (known + rate) / 2

    def save(self) -> None:
        """Keep what was learned, where the cache can be written."""
        try:
            write_json(self._path, {k: float(f"{v:.4g}") for k, v in self._known.items()})
        except (BenchError, OSError):
            return


def _keys(suite: Suite, task: Task) -> tuple[str, str]:
    """What a task is like: itself first, then the same in other suites and data sets."""
    method = next((c.method for c in task.cells if not c.control), "controls")
    kind = f"cells/{method}" if task.cells else f"{task.kind}/{task.part}"
    steps = f"{suite.num_steps}.{suite.train_images}.{suite.sae_steps}"
    return f"{suite.name}.{steps}/{task.dataset}/{kind}", kind


class RunClock:
    """How far a run is, by the tasks that have ended and those under way.

    Args:
        tasks: of the run, in order.
        expected: task's name → seconds; None for a task of an unknown kind.
        jobs: processes.
        attempts: marks of what was begun, by other processes; None where this one does all.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        expected: Mapping[str, float | None],
        jobs: int,
        attempts: Attempts | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks, self._jobs, self._attempts, self._clock = tasks, jobs, attempts, clock
        self._expected = expected
        self._ended: set[str] = set()
        self._began: dict[str, float] = {}
        self._since = clock()

    def end(self, name: str) -> float:
        """Note that a task has ended; the seconds that it took."""
        now = self._clock()
        seconds = now - self._began.get(name, self._since)
        self._ended.add(name)
        self._since = now
        return seconds

    def status(self) -> Status:
        """Now: what is being done, and the share of the time that is over."""
        running = self._running()
        names = tuple(f"{task.name} ({seconds:.0f} s)" for task, seconds in running)
        if not self._tasks or any(self._expected[t.name] is None for t in self._tasks):
            return Status(None, None, names)
        left, over = self._left(dict((t.name, s) for t, s in running))
        return Status(over / (over + left) if over + left else 1.0, left / self._jobs, names)

    def _left(self, running: Mapping[str, float]) -> tuple[float, float]:
        left = over = 0.0
        for task in self._tasks:
            whole = self._expected[task.name] or 0.0
            if task.name in self._ended:
                over += whole
            else:
                # One that takes longer than ever is never quite over.
                spent = min(running.get(task.name, 0.0), 0.95 * whole)
                over, left = over + spent, left + whole - spent
        return left, over

    def _running(self) -> list[tuple[Task, float]]:
        now = self._clock()
        waiting = [t for t in self._tasks if t.name not in self._ended]
        if self._attempts is None:
            return [(t, now - self._since) for t in waiting[:1]]
        begun = [t for t in waiting if self._attempts.count(t.key)]
        for task in begun:
            self._began.setdefault(task.name, now)
        return [(t, now - self._began[t.name]) for t in begun]


def work_left(task: Task, to_do: Collection[str]) -> float:
    """U-Net passes of the cells of a task that are not done; its own work where it has none."""
    return sum(c.work for c in task.cells if c.key in to_do) if task.cells else task.work
