"""Disks that are full or read-only, a clock that goes backwards: one line, nothing half done."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casl_bench.cache import store as store_module
from casl_bench.cli import main as cli
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import suites as config_module
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.fixture(scope="module", autouse=True)
def tiny_runs(toy_registered: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config_module.SUITES, "tiny", tiny_suite())
        yield


def command(out: Path, cache: Path) -> int:
    return cli.main(
        ["--methods", "casl", "--datasets", "toy_shapes", "--concepts", "red", "--suite", "tiny",
         "--out", str(out), "--cache", str(cache)]
    )  # fmt: skip


def ids(out: Path) -> list[str]:
    return [r.record_id for r in RecordStore(out)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder and its cache."""
    folder = tmp_path_factory.mktemp("finished")
    assert command(folder / "run", folder / "cache") == 0
    return folder / "run", folder / "cache"


def fault_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The line that tells a fault; what is before it is progress."""
    said = capsys.readouterr().err
    assert "Traceback" not in said and "unforeseen" not in said and "failed" not in said
    faults = [line for line in said.splitlines() if line.startswith("error: ")]
    assert faults == said.splitlines()[-1:]
    return faults[0]


def test_a_disk_that_fills_up_again_and_again(
    finished: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each call gets a few files further than the one before, as after room was made."""
    sync, room = os.fsync, iter(())

    def sync_while_there_is_room(descriptor: int) -> None:
        if next(room, None) is None:
            raise FULL
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_while_there_is_room)
    out, cache = tmp_path / "run", tmp_path / "cache"
    for files in (1, 4, 9, 30):
        room = iter(range(files))
        capsys.readouterr()
        assert command(out, cache) == 2
        assert "No space left on device" in fault_of(capsys)
        monkeypatch.setattr(os, "fsync", sync)
        assert cli.main(["cache", "verify", "--cache", str(cache)]) == 0  # none is half an entry
        monkeypatch.setattr(os, "fsync", sync_while_there_is_room)
    room = itertools.count()  # type: ignore[assignment]
    assert command(out, cache) == 0
    assert ids(out) == ids(finished[0])


def test_no_room_for_trajectories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any) -> None:
        raise FULL

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert command(tmp_path / "run", tmp_path / "cache") == 2
    assert "No space left on device" in fault_of(capsys)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_read_only_cache_gives_what_is_in_it(
    finished: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, cache = finished
    make_folder = Path.mkdir

    def refuse(*args: Any, **settings: Any) -> None:
        raise READ_ONLY

    def make_elsewhere(path: Path, *args: Any, **settings: Any) -> None:
        if path.is_relative_to(cache):
            raise READ_ONLY
        make_folder(path, *args, **settings)

    monkeypatch.setattr(Path, "mkdir", make_elsewhere)
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(store_module, "FileLock", refuse)
    before = sorted(cache.rglob("*"))
    assert command(tmp_path / "again", cache) == 0
    assert ids(tmp_path / "again") == ids(run)
    capsys.readouterr()
    monkeypatch.setitem(config_module.SUITES, "tiny", tiny_suite(sae_steps=4))
    assert command(tmp_path / "other", cache) == 2
    assert "Read-only file system" in fault_of(capsys)
    assert sorted(cache.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that nobody can write")
def test_a_cache_where_none_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "run", Path("/proc/casl_bench")) == 2
    assert "/proc/casl_bench" in fault_of(capsys)


def test_a_clock_that_goes_backwards(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look at it shows a minute less, and what lies in the cache is of the future."""
    run, cache = finished
    for path in cache.rglob("*"):
        os.utime(path, (2**33, 2**33))
    steps = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 60.0 * next(steps))
    assert command(tmp_path / "again", cache) == 0
    assert ids(tmp_path / "again") == ids(run)
    assert command(tmp_path / "anew", tmp_path / "cache") == 0
    assert ids(tmp_path / "anew") == ids(run)
    assert cli.main(["cache", "prune", "--older-than", "1s", "--cache", str(cache)]) == 0
    assert len(list(cache.glob("*/[0-9a-f]*"))) > 0
