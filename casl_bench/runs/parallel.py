"""Nodes on a Dask cluster: one that runs already, or one that is started, here or by a queue.

Only this file and `queue_cluster` know Dask, and only a run on it imports it. No more nodes are
handed over than workers can begin at once: which comes next is decided here, and a worker that dies
takes along nothing that merely waited.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from casl_bench.core.errors import UsageError
from casl_bench.runs.graph import Node, Outcome
from casl_bench.runs.own_process import THREAD_VARIABLES, own_process
from casl_bench.runs.suites import QueueName, RunConfig
from casl_bench.runs.worker import Sender, Told, carry_out

# Nodes in several processes of this machine, by joblib's loky.


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


# Workers that are jobs of a batch queue: a Dask cluster by dask-jobqueue.


_CLASSES: dict[QueueName, str] = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}
_YAML = "~/.config/dask/jobqueue.yaml"


class QueueCluster:
    """A cluster whose workers the queue is asked for.

    Args:
        name: of the queue's kind.
        gpu: whether each worker is to have the resource GPU.

    Attributes:
        cluster: a cluster of dask-jobqueue, without jobs yet.

    Raises:
        UsageError: if the queue's commands are not here, or its configuration will not do.
    """

    def __init__(self, name: QueueName, *, gpu: bool) -> None:
        import dask_jobqueue

        kind = getattr(dask_jobqueue, _CLASSES[name])
        command = shlex.split(kind.job_cls.submit_command)[0]
        if shutil.which(command) is None:
            raise UsageError(
                f"this machine has no '{command}'",
                where=f"--queue {name}",
                mend="run it where jobs are submitted from",
            )
        self._name, self._faults = name, list[Exception]()
        try:
            self.cluster = kind(
                job_cls=_telling(kind.job_cls, self._faults),
                silence_logs=logging.CRITICAL,
                **_options(name, gpu),
            )
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise self._refusal(str(error)) from error

    def scale(self, workers: int) -> None:
        """Ask for so many workers, in as many jobs as that takes."""
        self.cluster.scale(workers)

    def check_taken(self) -> None:
        """End a run that waits for workers which the queue will not start.

        Raises:
            UsageError: with what it said to the first job that it did not take.
        """
        if self._faults:
            raise self._refusal(f"the queue took no job: {self._faults[0]}")

    def _refusal(self, said: str) -> UsageError:
        said = " ".join(said.split())
        return UsageError(said, where=f"--queue {self._name}", mend=f"see {_YAML}")


def _options(name: QueueName, gpu: bool) -> dict[str, Any]:
    """What the user's configuration leaves open."""
    import dask

    def configured(field: str) -> Any:
        return dask.config.get(f"jobqueue.{name}.{field}", None)

    if configured("memory") is None:
        raise UsageError(
            "how much memory a job asks for is not configured",
            where=f"--queue {name}",
            mend=f"set jobqueue.{name}.memory in {_YAML}: docs/scaling.md",
        )
    cores = configured("cores") or 1
    # A worker does one node at a time, whatever threads it has.
    processes = configured("processes") or (1 if gpu else cores)
    extra = [str(word) for word in configured("worker-extra-args") or []]
    if gpu and not any(word.startswith("--resources") for word in extra):
        extra += ["--resources", "GPU=1"]
    return {
        "cores": cores,
        "processes": processes,
        "worker_extra_args": extra,
        # The usual port of a scheduler's pages may be another command's.
        "scheduler_options": {"dashboard_address": ":0", **(configured("scheduler-options") or {})},
    }


def _telling(job: Any, faults: list[Exception]) -> Any:
    """The class of jobs, of which one that the queue does not take leaves word."""
    from distributed.deploy.spec import ProcessInterface

    class TellingJob(job):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except (OSError, RuntimeError, ValueError) as error:
                faults.append(error)
                await ProcessInterface.start(self)  # as one that has gone again

        async def close(self) -> None:
            await super().close()
            await ProcessInterface.close(self)  # which the class itself forgets

    return TellingJob


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
