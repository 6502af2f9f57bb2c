"""Nodes on a Dask cluster: one that runs already, or one that is started, here or by a queue.

Only this file and `queue_cluster` know Dask, and only a run on it imports it. No more nodes are
handed over than workers can begin at once: which comes next is decided here, and a worker that dies
takes along nothing that merely waited.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from casl_bench.core.errors import UsageError
from casl_bench.runs.execution.engine import Outcome
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.execution.local import threads_each
from casl_bench.runs.execution.own_process import THREAD_VARIABLES
from casl_bench.runs.execution.queue_cluster import QueueCluster
from casl_bench.runs.execution.remote import Sender, carry_out
from casl_bench.runs.planning.config import RunConfig

WAIT_SECONDS = 10.0
"""So often it is looked whether there are workers at all."""

CONNECT_SECONDS = 30.0

_ANY_PORT = {"dashboard_address": "127.0.0.1:0"}
"""Of a scheduler's pages: its usual port may be another command's, which it would warn of."""


class DaskEngine:
    """Hands nodes to the workers of a cluster.

    Args:
        config: the run; with `--scheduler` or `--queue` its workers come with their own threads.
        say: told when there is nobody to work.

    Raises:
        UsageError: if no scheduler answers, or a queue cannot be asked.
    """

    def __init__(self, config: RunConfig, say: Callable[[str], None]) -> None:
        self._config, self._say = _with_whole_paths(config), say
        self._resources = {"GPU": 1} if config.device.startswith("cuda") else {}
        self._stack = ExitStack()
        self._queue: QueueCluster | None = None
        here = config.execution.scheduler is None and config.execution.queue is None
        self._client = self._find_client()
        threads = threads_each(config.jobs) if here else None
        self._sender = Sender.here(parent=False, threads=threads)
        self._futures: dict[str, tuple[Any, Node]] = {}
        self._count = 0

    @property
    def free(self) -> bool:
        """Whether there are more workers than nodes at work; one node may always wait."""
        return len(self._futures) < max(1, self._places())

    @property
    def warm(self) -> Collection[str]:
        """Unknown: the scheduler chooses the worker."""
        return ()

    def submit(self, node: Node) -> None:
        """Hand a node to the scheduler."""
        self._count += 1
        future = self._client.submit(
            carry_out,
            self._config,
            node,
            self._sender,
            key=f"{node.kind}-{node.name}-{self._sender.token}-{self._count}",
            priority=-self._count,
            resources=self._resources,
            pure=False,
            retries=0,
        )
        self._futures[future.key] = (future, node)

    def next(self) -> Outcome:
        """Wait for one of the nodes."""
        from distributed import KilledWorker, wait

        told = False
        while True:
            try:
                pending = [future for future, _ in self._futures.values()]
                done = wait(pending, timeout=WAIT_SECONDS, return_when="FIRST_COMPLETED").done
                break
            except TimeoutError:
                if self._is_staffed():
                    continue
                if self._queue is not None:
                    self._queue.check_taken()
                if not told:
                    kind = "with a GPU (--resources GPU=1) " if self._resources else ""
                    self._say(f"no worker {kind}is connected: waiting for one")
                    told = True
        future = next(iter(done))
        _, node = self._futures.pop(future.key)
        if future.status == "finished":
            return Outcome(node, *future.result())
        error = None if future.status in ("cancelled", "lost") else future.exception()
        if error is None or isinstance(error, KilledWorker):
            return Outcome(node, died=True)
        raise error

    def close(self, *, kill: bool) -> None:
        """Take back what is not done, and end a cluster that was started here."""
        if kill:
            self._client.cancel([future for future, _ in self._futures.values()], force=True)
        self._futures.clear()
        self._stack.close()

    def _places(self) -> int:
        """Nodes that can be at work at once: a process does one at a time."""
        return len(self._client.nthreads())

    def _is_staffed(self) -> bool:
        """Whether there is a worker that may take a node."""
        if not self._resources:
            return self._places() > 0
        workers = self._client.scheduler_info()["workers"].values()
        return any("GPU" in worker["resources"] for worker in workers)

    def _find_client(self) -> Any:
        import dask
        from distributed import Client

        if self._config.execution.scheduler is not None:
            return self._connect(self._config.execution.scheduler)
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
            cluster = self._start_here() if self._config.execution.queue is None else self._ask()
        return self._stack.enter_context(Client(cluster))

    def _ask(self) -> Any:
        """A cluster whose workers are jobs."""
        assert self._config.execution.queue is not None
        self._queue = QueueCluster(self._config.execution.queue, gpu=bool(self._resources))
        cluster = self._stack.enter_context(self._queue.cluster)
        self._queue.scale(self._config.jobs)
        # Each of them has a machine of its own, as far as memory goes.
        self._config = self._config.model_copy(update={"jobs": 1})
        return cluster

    def _start_here(self) -> Any:
        """A cluster of this machine."""
        from distributed import LocalCluster

        threads = dict.fromkeys(THREAD_VARIABLES, str(threads_each(self._config.jobs)))
        return self._stack.enter_context(
            LocalCluster(
                n_workers=self._config.jobs,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=None,
                scheduler_kwargs=_ANY_PORT,
                resources=self._resources,
                env=threads,
                silence_logs=logging.CRITICAL,
            )
        )

    def _connect(self, scheduler: str) -> Any:
        from distributed import Client

        place = {"scheduler_file" if scheduler.endswith(".json") else "address": scheduler}
        try:
            client = Client(**place, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise UsageError(
                "no Dask scheduler answers",
                where=f"--scheduler {scheduler}",
                mend="start one with `dask scheduler`, or leave --scheduler out",
            ) from error
        return self._stack.enter_context(client)


def _with_whole_paths(config: RunConfig) -> RunConfig:
    """The same run for a process that was started in another folder."""
    options = config.options
    paths: dict[str, Any] = {k: v.absolute() for k, v in options if isinstance(v, Path)}
    paths["classifiers"] = tuple(file.absolute() for file in options.classifiers)
    return config.model_copy(
        update={
            "out": config.out.absolute(),
            "cache": config.cache.absolute(),
            "plugins": tuple(plugin.absolute() for plugin in config.plugins),
            "method_weights": {n: path.absolute() for n, path in config.method_weights.items()},
            "options": options.model_copy(update=paths),
        }
    )
