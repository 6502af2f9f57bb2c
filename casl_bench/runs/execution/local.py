"""Nodes in several processes of this machine, by joblib's loky.

Each process is a pool of its own, so that one that dies takes no other down and is known by name.
A free process is given a node of the data set that it has open, where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from casl_bench.runs.execution.engine import Outcome
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.execution.own_process import own_process
from casl_bench.runs.execution.remote import Sender, Told, carry_out
from casl_bench.runs.planning.config import RunConfig


@dataclass
class _Slot:
    """A process, started with its first node.

    Attributes:
        pool: of that one process; None before it is started, and where it has died.
        dataset: that it has open.
        node: that it is at.
    """

    pool: ProcessPoolExecutor | None = None
    dataset: str = ""
    node: Node | None = None


class LocalEngine:
    """`jobs` processes, each with its share of the threads.

    Sums over another number of threads may differ in their last bit, so numbers are those of a run
    in one process with as many threads.

    Args:
        config: the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._threads = threads_each(config.jobs)
        self._sender = Sender.here(parent=True, threads=self._threads)
        self._slots = [_Slot() for _ in range(config.jobs)]
        self._futures: dict[Future[Told], _Slot] = {}

    @property
    def free(self) -> bool:
        """Whether a process has nothing to do."""
        return bool(self._idle())

    @property
    def warm(self) -> Collection[str]:
        """What processes that have nothing to do have open."""
        return {slot.dataset for slot in self._idle() if slot.dataset}

    def submit(self, node: Node) -> None:
        """Give a node to a free process: the one that has its data set open, else a new one."""
        slot = min(self._idle(), key=lambda s: (s.dataset != node.dataset, bool(s.dataset)))
        if slot.pool is None:
            slot.pool = own_process(self._threads)
        slot.node, slot.dataset = node, node.dataset
        self._futures[slot.pool.submit(carry_out, self._config, node, self._sender)] = slot

    def next(self) -> Outcome:
        """Wait for one of the nodes."""
        done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
        future = done.pop()
        slot = self._futures.pop(future)
        node, slot.node = slot.node, None
        assert node is not None
        try:
            return Outcome(node, *future.result())
        except BrokenProcessPool:
            assert slot.pool is not None
            slot.pool.shutdown(wait=False, kill_workers=True)
            slot.pool, slot.dataset = None, ""
            return Outcome(node, died=True)

    def close(self, *, kill: bool) -> None:
        """End the processes."""
        for slot in self._slots:
            if slot.pool is not None:
                slot.pool.shutdown(wait=not kill, kill_workers=kill)

    def _idle(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.node is None]


def threads_each(jobs: int) -> int:
    """A process's share of the threads of this machine."""
    return max(1, (os.cpu_count() or 1) // jobs)
