"""Engines: this process, several processes of this machine, or the workers of a Dask cluster.

Only `dask_engine` imports Dask. An engine holds no task back and hands out no more than processes
can begin at once, so a process that dies takes nothing along that merely waited.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config

from casl_bench.core.errors import UsageError, as_line
from casl_bench.core.files import read_json
from casl_bench.core.memory import GB, free_memory
from casl_bench.core.option_types import expand_home
from casl_bench.runs.suites import QueueName, RunConfig
from casl_bench.runs.tasks import Task
from casl_bench.runs.worker import JobContext, TaskResult, Worker, carry_out

Engine = Callable[[Sequence[Task]], Iterator[TaskResult]]
"""Carries out tasks, begun in their order, and yields the result of each that comes to its end. A
task whose process died has none. Errors of a task end the run."""

MEMORY_OF_A_JOB = {"synth": 2 * GB, "real": 8 * GB}
"""Domain → what a process needs: networks, a data set's images and edits."""

IDLE_SECONDS = 30
"""After so long a process that has nothing to do ends, and gives its memory back."""


def default_jobs(device: str, domain_kind: str) -> int:
    """As many processes as cores and free memory bear; one on a GPU."""
    if device != "cpu":
        return 1
    return max(1, min(int(cpu_count()), free_memory() // MEMORY_OF_A_JOB[domain_kind]))


def check_engine(config: RunConfig) -> None:
    """Refuse, with a UsageError, an engine that is not here, before anything is opened."""
    config.execution.check(config.jobs)
    if config.execution.scheduler is not None:
        _scheduler(config.execution.scheduler)
    needed = {}
    if config.execution.engine(config.jobs) == "dask":
        needed["distributed"] = "--executor dask"
    if config.execution.queue is not None:
        needed["dask_jobqueue"] = "--queue"
    for package, option in needed.items():
        if find_spec(package) is None:
            raise UsageError(
                f"{option} needs the package '{package.replace('_', '-')}'",
                hint="pip install 'casl-bench[cluster]', or use --executor local",
            )


def serial_engine(worker: Worker) -> Engine:
    """Tasks one after another in this process."""

    def run(tasks: Sequence[Task]) -> Iterator[TaskResult]:
        for task in tasks:
            worker.do(task)
            yield TaskResult(task.name)

    return run


def local_engine(config: RunConfig) -> Engine:
    """Tasks in `config.jobs` processes of this machine, by joblib."""
    context = JobContext.here(is_parent=True)
    # A process whose memory has grown is replaced between two tasks: nothing is lost.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)

    def run(tasks: Sequence[Task]) -> Iterator[TaskResult]:
        # With one job joblib would start no process.
        pool = {"n_jobs": max(2, config.jobs), "idle_worker_timeout": IDLE_SECONDS}
        with parallel_config("loky", inner_max_num_threads=1, **pool):
            parallel = Parallel(
                return_as="generator_unordered", batch_size=1, pre_dispatch=config.jobs
            )
            calls = (delayed(carry_out)(config, task, context) for task in tasks)
            try:
                yield from parallel(calls)
            except BrokenProcessPool:  # one died, and joblib ends the others
                return

    return run


WAIT_SECONDS = 10.0
"""So often it is looked whether there are workers at all."""

CONNECT_SECONDS = 30.0

_ANY_PORT = {"dashboard_address": "127.0.0.1:0"}
"""Of a scheduler's pages: its usual port may be another command's, which it would warn of."""

_QUEUES: dict[QueueName, str] = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}


@contextmanager
def dask_engine(config: RunConfig, say: Callable[[str], None]) -> Iterator[Engine]:
    """Tasks on a Dask cluster: one that runs, or one that is started, here or by a queue."""
    import dask
    from distributed import Client, KilledWorker, wait

    context = JobContext.here(is_parent=False)
    resources = {"GPU": 1} if config.device.startswith("cuda") else {}
    config = _with_absolute_paths(config)
    # A worker that a queue starts has a machine of its own, as far as memory goes.
    shared = config.execution.queue is None
    sent = config if shared else config.model_copy(update={"jobs": 1})
    with ExitStack() as stack:
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
            address = stack.enter_context(_cluster(config, resources))
            client = stack.enter_context(_connect(Client, address))

        def has_workers() -> bool:
            workers = client.scheduler_info()["workers"].values()
            return any(set(resources) <= set(worker["resources"]) for worker in workers)

        def submit(task: Task) -> Any:
            return client.submit(
                carry_out, sent, task, context, resources=resources, pure=False, retries=0
            )

        def run(tasks: Sequence[Task]) -> Iterator[TaskResult]:
            waiting, futures, warned = iter(tasks), set[Any](), False
            try:
                while True:
                    free = max(1, len(client.nthreads())) - len(futures)
                    futures |= {submit(task) for task in islice(waiting, max(0, free))}
                    if not futures:
                        return
                    try:
                        done = wait(futures, WAIT_SECONDS, return_when="FIRST_COMPLETED").done
                    except TimeoutError:
                        if not warned and not has_workers():
                            kind = "with a GPU (--resources GPU=1) " if resources else ""
                            say(f"no worker {kind}is connected: waiting for one")
                            warned = True
                        continue
                    futures -= done
                    for future in done:
                        if future.status == "finished":
                            yield future.result()
                        elif future.status == "error":
                            error = future.exception()
                            if not isinstance(error, KilledWorker):
                                raise error
            finally:
                client.cancel(list(futures), force=True)

        yield run


@contextmanager
def _cluster(config: RunConfig, resources: dict[str, int]) -> Iterator[Any]:
    """What a client connects to."""
    execution = config.execution
    if execution.scheduler is not None:
        yield execution.scheduler
        return
    if execution.queue is None:
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=config.jobs,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            scheduler_kwargs=_ANY_PORT,
            resources=resources,
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster
        return
    with _queue_cluster(execution.queue) as cluster:
        cluster.scale(config.jobs)
        yield cluster


def _queue_cluster(queue: QueueName) -> Any:
    """A cluster whose workers are jobs of a batch queue, as the user's configuration has them."""
    import dask_jobqueue

    try:
        return getattr(dask_jobqueue, _QUEUES[queue])(scheduler_options=_ANY_PORT)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            " ".join(str(error).split()),
            where=f"--queue {queue}",
            hint="see ~/.config/dask/jobqueue.yaml and docs/scaling.md",
        ) from error


def _scheduler(text: str) -> str:
    """The address of a scheduler that runs, as it is or from its file.

    UsageError: no such file, which Dask would wait for, or another one.
    """
    text = expand_home(text, "--scheduler")
    path = Path(text)
    is_path = path.suffix == ".json" or len(path.parts) > 1 or path.is_file()
    if text and ("://" in text or not is_path):
        return text
    try:
        address = read_json(path)["address"]
        if not isinstance(address, str):
            raise TypeError
        return address
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            "no scheduler file" if path.is_file() else "no such scheduler file",
            where=f"--scheduler {text}",
            hint="give an address, or the file that `dask scheduler --scheduler-file FILE` writes",
        ) from error


def _connect(client: Callable[..., Any], cluster: Any) -> Any:
    if not isinstance(cluster, str):
        return client(cluster)
    address = _scheduler(cluster)
    try:
        return client(address, timeout=CONNECT_SECONDS)
    except Exception as error:  # Dask: of the network, of TLS, of a protocol that is not installed
        raise UsageError(
            f"no Dask scheduler answers: {as_line(error)}",
            where=f"--scheduler {cluster}",
            hint="start one with `dask scheduler`, or leave --scheduler out",
        ) from error


def _with_absolute_paths(config: RunConfig) -> RunConfig:
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
