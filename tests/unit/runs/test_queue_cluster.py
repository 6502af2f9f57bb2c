"""What batch queues are asked for, and what is said where they cannot be or will not.

No queue is here: its commands are scripts, of which one runs the job on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.runs.parallel import QueueCluster

dask = pytest.importorskip("dask", reason="comes with the extra 'cluster'")
pytest.importorskip("dask_jobqueue", reason="comes with the extra 'cluster'")

HERE = {"scheduler-options": {"host": "127.0.0.1"}, "memory": "2GB"}

Command = Callable[[str, str], None]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Puts a script in the way of a command."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def make(name: str, text: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return make


@pytest.fixture
def configured() -> Iterator[Callable[..., None]]:
    """Stands for the user's jobqueue.yaml."""
    before = dask.config.get("jobqueue")

    def configure(name: str, **fields: Any) -> None:
        named = {field.replace("_", "-"): value for field, value in fields.items()}
        dask.config.set({f"jobqueue.{name}.{k}": v for k, v in (HERE | named).items()})

    with dask.config.set({"jobqueue": before}):
        yield configure


def script(name: str, *, gpu: bool = False) -> str:
    queue = QueueCluster(name, gpu=gpu)  # type: ignore[arg-type]
    with queue.cluster as cluster:
        return str(cluster.job_script())


@pytest.mark.parametrize(
    ("name", "submit", "asked"),
    [
        ("slurm", "sbatch", "#SBATCH --cpus-per-task=1\n#SBATCH --mem=2G"),
        ("pbs", "qsub", "#PBS -l select=1:ncpus=1:mem=1908MB"),
        ("lsf", "bsub", "#BSUB -n 1"),
        ("sge", "qsub", "#$ -N dask-worker"),
    ],
)
def test_a_job_is_one_worker_of_one_thread_where_nothing_else_is_configured(
    command: Command, configured: Callable[..., None], name: str, submit: str, asked: str
) -> None:
    command(submit, "")
    configured(name, **({"use_stdin": True} if name == "lsf" else {}))
    text = script(name)
    assert asked in text
    assert "distributed.cli.dask_worker tcp://127.0.0.1" in text
    assert "--nthreads 1 " in text and "--nworkers" not in text and "GPU" not in text


def test_what_is_configured_counts_and_a_gpu_is_asked_for_as_well(
    command: Command, configured: Callable[..., None]
) -> None:
    command("sbatch", "")
    configured("slurm", cores=4, walltime="09:00:00", worker_extra_args=["--lifetime", "8h"],
               job_extra_directives=["--gres=gpu:1"])  # fmt: skip
    text = script("slurm")
    assert "#SBATCH -t 09:00:00" in text and "#SBATCH --gres=gpu:1" in text
    assert "--nthreads 1 " in text and "--nworkers 4" in text
    assert "--lifetime 8h" in text and "--resources" not in text
    text = script("slurm", gpu=True)
    assert "--nworkers" not in text and "--lifetime 8h --resources GPU=1" in text
    configured("slurm", processes=2, worker_extra_args=["--resources", "GPU=1,disk=1"])
    text = script("slurm", gpu=True)
    assert "--nworkers 2" in text and text.count("--resources") == 1


# Dask's cluster is not let go of where it is refused while it is made.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_queue_that_is_not_here_or_not_configured_is_told_in_one_line(
    command: Command, configured: Callable[..., None]
) -> None:
    with pytest.raises(UsageError, match=r"no 'sbatch' \(--queue slurm\)"):
        QueueCluster("slurm", gpu=False)
    command("sbatch", "")
    configured("slurm", memory=None)
    with pytest.raises(UsageError, match=r"how much memory .*set jobqueue\.slurm\.memory in ~"):
        QueueCluster("slurm", gpu=False)
    configured("slurm", memory="much")
    with pytest.raises(UsageError, match=r"^[^\n]*much[^\n]*--queue slurm[^\n]*$"):
        QueueCluster("slurm", gpu=False)


def test_a_job_that_the_queue_does_not_take_ends_the_wait(
    command: Command, configured: Callable[..., None]
) -> None:
    command("sbatch", "echo 'invalid partition' >&2; exit 1")
    configured("slurm")
    queue = QueueCluster("slurm", gpu=False)
    queue.check_taken()
    with queue.cluster as cluster:
        queue.scale(2)
        cluster.sync(cluster._correct_state)
        with pytest.raises(UsageError, match="the queue took no job") as refused:
            queue.check_taken()
    assert "invalid partition" in str(refused.value) and "\n" not in str(refused.value)
    assert re.search(r"see ~/\S+jobqueue.yaml", str(refused.value))
