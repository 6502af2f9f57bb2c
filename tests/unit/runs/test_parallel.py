"""How many processes a command starts, and what batch queues are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.core.memory import GB
from casl_bench.runs import parallel, worker
from casl_bench.runs.parallel import (
    _connect,
    _queue_cluster,
    _scheduler,
    check_engine,
    default_jobs,
)
from casl_bench.runs.suites import SUITES, Execution, RunConfig
from casl_bench.runs.system_info import resolve_device, resolve_devices


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


def claimed(config: RunConfig, monkeypatch: pytest.MonkeyPatch, token: str = "a run") -> Any:
    """What another process of a run would work on, and the lock that it holds."""
    monkeypatch.setattr(worker, "_devices", {})
    own = worker.on_own_device(config, token)
    assert worker.on_own_device(config, token) == own and own.jobs == 1
    return own.device, worker._devices[token][1]


def test_each_process_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    devices = ("cuda:0", "cuda:1", "cuda:3")
    config = RunConfig(
        methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=SUITES["quick"], seed=0,
        device="cuda:0", devices=devices, jobs=3, out=tmp_path,
    )  # fmt: skip
    held = [claimed(config, monkeypatch) for _ in devices]
    assert [device for device, _ in held] == [*devices]
    with pytest.raises(UsageError, match="more processes than devices"):
        claimed(config, monkeypatch)
    held[1][1].release()  # that process has died
    assert claimed(config, monkeypatch)[0] == "cuda:1"
    assert claimed(config, monkeypatch, "another run")[0] == "cuda:0"
    alone = config.model_copy(update={"devices": ()})
    assert worker.on_own_device(alone, "a run") is alone


@pytest.mark.parametrize("text", ["", "a", "0,0", "0,-1", "0;1"])
def test_what_is_no_list_of_gpus_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no list of GPUs"):
        resolve_devices(text, here=False)


def test_gpus_are_named_by_number() -> None:
    assert resolve_devices("0, 2", here=False) == ("cuda:0", "cuda:2")
    assert resolve_device("cuda", here=False) == "cuda:0"
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        resolve_device("gpu", here=False)
