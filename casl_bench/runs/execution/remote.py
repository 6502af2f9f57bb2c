"""A node in another process: what is sent there, and what is done there with it.

A process carries out one node at a time, whatever it is asked: two would share its threads, and
each would be charged with the other's death.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from functools import partial

import torch

from casl_bench.cache.code_version import RECORD_CODE, code_hash
from casl_bench.core.errors import UsageError
from casl_bench.runs.execution.attempts import Attempts
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.execution.worker import Worker
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.runs.planning.plan import open_worlds
from casl_bench.runs.watching.phase_costs import PhaseCost
from casl_bench.runs.watching.progress import Notes
from casl_bench.worlds.world import World

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
