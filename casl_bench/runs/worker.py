"""Carries out nodes, in whatever process: opens a data set's world once and keeps it warm."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from casl_bench.cache.code_hash import RECORD_CODE, code_hash
from casl_bench.core.errors import UsageError
from casl_bench.domains.domain import World
from casl_bench.methods.method import METHODS
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs.attempts import Attempts
from casl_bench.runs.dataset import DatasetRun
from casl_bench.runs.graph import Node
from casl_bench.runs.names import load_entrants
from casl_bench.runs.plan import (
    KEY_ARTEFACT,
    Cell,
    done,
    fingerprint,
    open_worlds,
    sources_of_methods,
    sources_of_world,
)
from casl_bench.runs.progress import Notes, PhaseCost, Progress
from casl_bench.runs.suites import RunConfig


class SmokeFailedError(RuntimeError):
    """The method's first cell has failed, so its others were not run."""


class Worker:
    """Carries out nodes one after another.

    Args:
        config: the run.
        open_world: data set → its world.
        progress: shown meanwhile.
        attempts: where cells are noted while they last; None where nobody would read it, since
            there is no other process.
    """

    def __init__(
        self,
        config: RunConfig,
        open_world: Callable[[str], World],
        progress: Progress,
        attempts: Attempts | None = None,
    ) -> None:
        self.config, self.attempts = config, attempts
        self.store = RecordStore(config.out)
        self._open_world, self._progress = open_world, progress
        self._warm: DatasetRun | None = None

    def hear(self, progress: Progress) -> None:
        """Show progress elsewhere from now on."""
        self._progress = progress
        if self._warm is not None:
            self._warm.hear(progress)

    def do(self, node: Node) -> None:
        """Carry out a node, less what is done already.

        Raises:
            InvalidBenchmarkError: as a data set or a cell raises it.
            UsageError: if what is here is not what the node was planned for.
        """
        run = self._run_of(node.dataset)
        if node.kind in ("inversions", "sae"):
            run.share(cast(Any, node.part or node.kind))
        elif node.kind == "judged":
            run.prepare()
        elif node.kind == "null":
            run.run_random_directions()
        elif node.kind == "last":
            run.finish()
        else:
            _check_world(node.cells, run.world)
            for cell in node.cells:
                self._do_cell(run, node, cell)

    def _run_of(self, dataset: str) -> DatasetRun:
        if self._warm is None or self._warm.world.dataset.card.name != dataset:
            self._warm = None  # one world's models at a time
            world = self._open_world(dataset)
            self._warm = DatasetRun(world, self.config, self.store, self._progress)
        return self._warm

    def _do_cell(self, run: DatasetRun, node: Node, cell: Cell) -> None:
        limit = self.config.execution.cell_timeout
        fault: Exception | None = None
        if done(self.store, cell) is None:
            if (gate := self._closed(node)) is not None:
                run.fail(cell, gate, "skipped" if cell.beside else "failed")
                return
            fault = None if self.attempts is None else self.attempts.fault(cell.key, limit)
        if fault is not None:
            run.fail(cell, fault, "failed")
            self._progress.note(f"{cell.label} failed: {type(fault).__name__}: {fault}")
            return
        with (
            contextlib.nullcontext()
            if self.attempts is None
            else self.attempts.begun(cell.key, limit)
        ):
            run.run_cells([cell], lambda cell: None)

    def _closed(self, node: Node) -> SmokeFailedError | None:
        """What keeps a node from being run, of a method whose first cell has failed."""
        if node.gate is None:
            return None
        record = self.store.find(node.gate.store_key)
        if record is None or record.artefacts.get(KEY_ARTEFACT) != node.gate.key:
            return None
        if record.status != "failed" or record.error is None:
            return None
        return SmokeFailedError(
            f"not run, since '{node.gate.label}' of {node.gate.dataset} failed "
            f"({record.error.type}); --no-smoke runs it all the same"
        )


def _check_world(cells: Sequence[Cell], world: World) -> None:
    """Another process may see other files than the one that has planned.

    Raises:
        UsageError: where models or images differ.
    """
    card = world.dataset.card
    inputs = cells[0].inputs
    if (inputs["world"], inputs["dataset"]) != (fingerprint(world), [card.name, card.revision]):
        raise UsageError(
            "a worker has other models or images than the command",
            where=card.name,
            mend="give every worker the same package, weights and data",
        )
    methods = sources_of_methods({name: METHODS.factory(name) for name in METHODS})
    here = {**sources_of_world(world), **methods}
    planned = {name: source for cell in cells for name, source in cell.sources.items()}
    if other := sorted(name for name, source in planned.items() if here.get(name) != source):
        raise UsageError(
            f"a worker has another source of {', '.join(other)} than the command",
            where=card.name,
            mend="give every worker the same package and plugins, and edit none while it runs",
        )


# A node in another process: what is sent there, and what is done there with it.


Told = tuple[tuple[str, ...], dict[str, PhaseCost]]
"""What is to be said of a node, and what its phases have cost."""

_lock = threading.Lock()
_kept: dict[str, Worker] = {}
"""Of this process: token of the run that it works for → its worker."""


@dataclass(frozen=True)
class Sender:
    """Who sends nodes.

    Attributes:
        token: of one run: what a process has kept of another is not used.
        code: hash of the code that records are made by.
        host: machine of the process that sends.
        pid: its process id.
        parent: whether the processes are its children, which end when it does.
        threads: CPU threads of each; None leaves them as they were started.
    """

    token: str
    code: str
    host: str
    pid: int
    parent: bool
    threads: int | None

    @classmethod
    def here(cls, *, parent: bool, threads: int | None) -> Sender:
        """This process, for a new run."""
        token = os.urandom(8).hex()
        code = code_hash(RECORD_CODE)
        return cls(token, code, socket.gethostname(), os.getpid(), parent, threads)


def carry_out(config: RunConfig, node: Node, sender: Sender) -> Told:
    """In another process: do a node; returns what this one is told of it.

    Raises:
        BenchError: as the node raises it, or where this process is not fit to do it.
    """
    with _lock:
        notes = Notes()  # its clock starts here
        _check_here(config, sender)
        if sender.threads is not None:
            torch.set_num_threads(sender.threads)
        load_entrants(config.plugins)
        if sender.token not in _kept:
            _kept.clear()
            attempts = Attempts(config.out)
            _kept[sender.token] = Worker(config, partial(_open, config), notes, attempts)
        worker = _kept[sender.token]
        worker.hear(notes)
        worker.do(node)
        return tuple(notes.lines), notes.costs.by_phase()


def _open(config: RunConfig, dataset: str) -> World:
    return open_worlds(config.model_copy(update={"datasets": (dataset,)}))[dataset]


def _check_here(config: RunConfig, sender: Sender) -> None:
    if sender.parent and os.getppid() != sender.pid:
        os._exit(1)  # killed: whoever runs the command again must not find this process at work
    if sender.code != code_hash(RECORD_CODE):
        raise UsageError(
            "a worker runs other code than the command",
            where=socket.gethostname(),
            mend="install the same version everywhere and start the workers anew",
        )
    here = (socket.gethostname(), os.getpid()) == (sender.host, sender.pid)
    if here and config.execution.cell_timeout is not None:
        raise UsageError(
            "--cell-timeout ends a worker's process, and this worker shares the command's",
            mend="start workers in processes of their own",
        )
    if not config.out.is_dir():
        raise UsageError(
            "a worker does not see the run folder",
            where=f"{config.out} on {socket.gethostname()}",
            mend="give --out on a folder that all machines share",
        )
