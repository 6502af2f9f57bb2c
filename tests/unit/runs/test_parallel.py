"""How many processes a command starts, and what batch queues are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.core.memory import GB
from casl_bench.runs import parallel
from casl_bench.runs.parallel import (
    _connect,
    _queue_cluster,
    _scheduler,
    check_engine,
    default_jobs,
)
from casl_bench.runs.suites import SUITES, Execution, RunConfig


@pytest.mark.parametrize(
    ("cores", "free", "device", "domain_kind", "jobs"),
    [
        (2, 16, "cpu", "synth", 2),
        (64, 16, "cpu", "synth", 8),
        (64, 16, "cpu", "real", 2),
        (4, 1, "cpu", "synth", 1),
        (64, 500, "cuda:0", "real", 1),
    ],
)
def test_jobs_are_what_cores_and_memory_bear(
    cores: int, free: int, device: str, domain_kind: str, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "cpu_count", lambda: cores)
    monkeypatch.setattr(parallel, "free_memory", lambda: free * GB)
    assert default_jobs(device, domain_kind) == jobs


@pytest.fixture
def configured() -> Any:
    """Stands for the user's jobqueue.yaml."""
    dask = pytest.importorskip("dask", reason="comes with the extra 'cluster'")
    pytest.importorskip("dask_jobqueue", reason="comes with the extra 'cluster'")
    here = {"cores": 1, "processes": 1, "memory": "2GB", "interface": "lo"}

    def configure(**fields: Any) -> Any:
        named = {k.replace("_", "-"): v for k, v in (here | fields).items()}
        return dask.config.set({f"jobqueue.slurm.{k}": v for k, v in named.items()})

    return configure


def test_a_job_is_what_the_users_configuration_says(configured: Any) -> None:
    directives = ["--gres=gpu:1"]
    extra = ["--resources", "GPU=1"]
    with (
        configured(walltime="09:00:00", job_extra_directives=directives, worker_extra_args=extra),
        _queue_cluster("slurm") as cluster,
    ):
        text = cluster.job_script()
    assert "#SBATCH --cpus-per-task=1" in text and "#SBATCH --mem=2G" in text
    assert "#SBATCH -t 09:00:00" in text and "#SBATCH --gres=gpu:1" in text
    assert "--nthreads 1 " in text and "--resources GPU=1" in text


# Dask's cluster is not let go of where it is refused while it is made.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("memory", [None, "much"])
def test_a_queue_that_is_not_configured_is_refused_in_one_line(
    configured: Any, memory: str | None, tmp_path: Path
) -> None:
    with (
        configured(memory=memory),
        pytest.raises(UsageError, match=r"^[^\n]*--queue slurm[^\n]*jobqueue.yaml[^\n]*$"),
    ):
        _queue_cluster("slurm")


@pytest.mark.parametrize("name", ["absent.json", "~/absent.json", "folder/absent", "folder", ""])
def test_a_scheduler_file_that_is_not_there_is_not_waited_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="comes with the extra 'cluster'")
    monkeypatch.setenv("HOME", str(tmp_path))
    execution = Execution(scheduler=str(tmp_path) if name == "folder" else name)
    config = RunConfig(
        methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=SUITES["quick"], seed=0,
        device="cpu", out=tmp_path / "run", cache=tmp_path / "cache", execution=execution,
    )  # fmt: skip
    with pytest.raises(UsageError, match="no such scheduler file"):
        check_engine(config)


def test_a_scheduler_is_an_address_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text('{"type": "Scheduler", "address": "tcp://host:8786"}')
    for text in ("tcp://host:8786", str(file)):
        assert _scheduler(text) == "tcp://host:8786"
    for address in ("host:8786", "tls://host:1/x.json"):
        assert _scheduler(address) == address
    for content in ("", "{", "[]", "{}", "null", '{"address": 5}'):
        file.write_text(content)
        with pytest.raises(UsageError, match="no scheduler file"):
            _scheduler(str(file))


@pytest.mark.parametrize("error", [OSError("no"), TypeError("TLS expects"), ImportError("x")])
def test_whatever_dask_says_of_an_address_is_one_line(error: Exception) -> None:
    """Such as a protocol that needs settings, or a library that is not installed."""

    def client(address: str, timeout: float) -> None:
        raise error

    with pytest.raises(UsageError) as raised:
        _connect(client, "tls://127.0.0.1:1")
    said = str(raised.value)
    assert said.startswith(f"no Dask scheduler answers: {type(error).__name__}: {error} (--sched")
