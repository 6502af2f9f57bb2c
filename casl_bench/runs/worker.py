"""Carries out tasks in whatever process: opens a data set once and keeps it open."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, cast

from filelock import FileLock, Timeout

from casl_bench.cache.code_hash import PACKAGE_CODE, code_hash
from casl_bench.core.errors import UsageError, as_line
from casl_bench.domains.dataset import Split
from casl_bench.domains.domain import Domain
from casl_bench.methods.method import METHODS
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs.dataset import DatasetRun
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import (
    Cell,
    done,
    fingerprint,
    open_domain,
    own_record,
    sources_of_domain,
    sources_of_methods,
)
from casl_bench.runs.progress import BufferedProgress, PhaseCost, Progress
from casl_bench.runs.suites import RunConfig
from casl_bench.runs.tasks import Attempts, Task


class SmokeFailedError(RuntimeError):
    """The method's first cell has failed, so its others were not run."""


class Worker:
    """Carries out tasks one after another.

    `attempts` marks them while they last; the command's own process, which nothing outlives, has
    none.
    """

    def __init__(
        self,
        config: RunConfig,
        open_domain: Callable[[str], Domain],
        progress: Progress,
        attempts: Attempts | None = None,
    ) -> None:
        self.config, self.attempts = config, attempts
        self.store = RecordStore(config.out)
        self._open_domain, self._progress = open_domain, progress
        self._open: DatasetRun | None = None

    def set_progress(self, progress: Progress) -> None:
        """Show progress elsewhere from now on."""
        self._progress = progress
        if self._open is not None:
            self._open.artifacts.progress = progress

    def do(self, task: Task) -> None:
        """Carry out a task, less what is done already.

        Raises UsageError if what is here is not what the task was planned for.
        """
        with self._marked(task.key):
            run = self._run_of(task.dataset)
            if task.kind == "inversions":
                run.share(cast(Split, task.part))
            elif task.kind == "sae":
                run.share("sae")
            elif task.kind == "dataset":
                run.prepare()
            elif task.kind == "random directions":
                run.run_random_directions()
            elif task.kind == "sae quality":
                run.finish()
            else:
                self._do_cells(run, task)

    def _marked(self, key: str, limit: float | None = None) -> AbstractContextManager[None]:
        return nullcontext() if self.attempts is None else self.attempts.begun(key, limit)

    def _run_of(self, dataset: str) -> DatasetRun:
        if self._open is None or self._open.domain.dataset.card.name != dataset:
            self._open = None  # one data set's models at a time
            domain = self._open_domain(dataset)
            self._open = DatasetRun(domain, self.config, self.store, self._progress)
        return self._open

    def _do_cells(self, run: DatasetRun, task: Task) -> None:
        _check_domain(task.cells, run.domain)
        if self.attempts is not None:
            # What cells share, perhaps waited for while another process makes it, is no part of
            # their time.
            shared: tuple[Split, ...] = ("train", "validation", "test")
            for part in (*shared, *(("sae",) if task.uses_sae else ())):
                run.share(cast(Literal[Split, "sae"], part))
        for cell in task.cells:
            self._do_cell(run, task, cell)

    def _do_cell(self, run: DatasetRun, task: Task, cell: Cell) -> None:
        limit = self.config.execution.cell_timeout
        if done(self.store, cell) is None:
            if (gate := self._failed_gate(task)) is not None:
                run.fail(cell, gate, "skipped" if cell.beside else "failed")
                return
            if self.attempts is not None and (fault := self.attempts.fault(cell.key, limit)):
                run.fail(cell, fault, "failed")
                self._progress.note(f"{cell.label} failed: {as_line(fault)}")
                return
        with self._marked(cell.key, limit):
            run.run_cell(cell)

    def _failed_gate(self, task: Task) -> SmokeFailedError | None:
        """Why a task is not run: the first cell of its method has failed."""
        if task.gate is None:
            return None
        record = own_record(self.store, task.gate)
        if record is None or record.status != "failed" or record.error is None:
            return None
        return SmokeFailedError(
            f"not run, since '{task.gate.label}' of {task.gate.dataset} failed "
            f"({record.error.type}); --no-smoke runs it all the same"
        )


def _check_domain(cells: Sequence[Cell], domain: Domain) -> None:
    """Refuse other models, images or plugins than those of the plan, which a worker may see."""
    card = domain.dataset.card
    inputs = cells[0].inputs
    if (inputs["world"], inputs["dataset"]) != (fingerprint(domain), [card.name, card.revision]):
        raise UsageError(
            "a worker has other models or images than the command",
            where=card.name,
            hint="give every worker the same package, weights and data",
        )
    here = {**sources_of_domain(domain), **sources_of_methods(METHODS)}
    planned = {name: source for cell in cells for name, source in cell.sources.items()}
    if other := sorted(name for name, source in planned.items() if here.get(name) != source):
        raise UsageError(
            f"a worker has another source of {', '.join(other)} than the command",
            where=card.name,
            hint="give every worker the same package and plugins, and edit none while it runs",
        )


@dataclass(frozen=True)
class TaskResult:
    """What is reported of a task that has ended. What counts are the records on disk."""

    task: str
    notes: tuple[str, ...] = ()
    costs: dict[str, PhaseCost] = field(default_factory=dict)


@dataclass(frozen=True)
class JobContext:
    """The command that sends tasks.

    Attributes:
        token: of one run: what a process keeps open for another run is not used.
        code: hash of the package.
        host: machine of the command.
        is_parent: whether it has started the processes, which then end when it does.
    """

    token: str
    code: str
    host: str
    pid: int
    is_parent: bool

    @classmethod
    def here(cls, *, is_parent: bool) -> JobContext:
        """This process, for a new run."""
        code = code_hash(PACKAGE_CODE)
        return cls(os.urandom(8).hex(), code, socket.gethostname(), os.getpid(), is_parent)


_lock = threading.Lock()
_open: dict[str, Worker] = {}
"""Of this process: token of the run that it works for → its worker."""

_LOOKS = 1.0
"""Seconds between two looks at who the parent is."""


def carry_out(config: RunConfig, task: Task, context: JobContext) -> TaskResult:
    """Do a task in another process; BenchError where it is not fit for it."""
    with _lock, one_thread():
        progress = BufferedProgress()  # its clock starts here
        if context.is_parent:
            _end_with(context.pid)
        _check_here(config, context)
        load_registries(config.plugins)
        if context.token not in _open:
            _open.clear()
            config = on_own_device(config, context.token)
            opened = partial(open_domain, config=config)
            _open[context.token] = Worker(config, opened, progress, Attempts(config.out))
        worker = _open[context.token]
        worker.set_progress(progress)
        worker.do(task)
        return TaskResult(task.name, tuple(progress.lines), progress.costs.by_phase())


_devices: dict[str, tuple[str, FileLock]] = {}
"""Of this process: token of a run → the GPU that it works on, locked while the process lives."""


def on_own_device(config: RunConfig, token: str) -> RunConfig:
    """The run on one of its devices that none of its other processes on this machine has.

    A process that dies gives its device back. Raises UsageError where there are more processes than
    devices.
    """
    if not config.devices:
        return config
    if token not in _devices:
        for device in config.devices:
            name = f"casl-bench-{token}-{device.replace(':', '-')}.lock"
            lock = FileLock(Path(tempfile.gettempdir()) / name)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                _devices[token] = (device, lock)
                break
        else:
            raise UsageError(
                f"more processes than devices ({', '.join(config.devices)})",
                hint="give as many --jobs as --devices, or leave --jobs out",
            )
    return config.model_copy(update={"device": _devices[token][0], "jobs": 1})


def _end_with(parent: int) -> None:
    """End this process once its parent is gone: a killed command cannot stop them itself."""

    def watch() -> None:
        while os.getppid() == parent:  # an orphan is given another parent
            time.sleep(_LOOKS)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    name = f"ends with {parent}"
    if name not in (thread.name for thread in threading.enumerate()):
        threading.Thread(target=watch, name=name, daemon=True).start()


def _check_here(config: RunConfig, context: JobContext) -> None:
    if context.code != code_hash(PACKAGE_CODE):
        raise UsageError(
            "a worker runs other code than the command",
            where=socket.gethostname(),
            hint="install the same version everywhere and start the workers anew",
        )
    here = (socket.gethostname(), os.getpid()) == (context.host, context.pid)
    if here and config.execution.cell_timeout is not None:
        raise UsageError(
            "--cell-timeout ends a worker's process, and this worker shares the command's",
            hint="start workers in processes of their own",
        )
    if not config.out.is_dir():
        raise UsageError(
            "a worker does not see the run folder",
            where=f"{config.out} on {socket.gethostname()}",
            hint="give --out on a folder that all machines share",
        )
