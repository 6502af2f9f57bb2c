"""Workers that are jobs of a batch queue: a Dask cluster by dask-jobqueue.

What a job asks for (memory, time, partition, account) is the site's business and stands in the
user's own `jobqueue.yaml`; here is added only what a run knows: one thread a worker, and the GPU.
"""

from __future__ import annotations

import logging
import shlex
import shutil
from typing import Any

from casl_bench.core.errors import UsageError
from casl_bench.runs.planning.execution import QueueName

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
