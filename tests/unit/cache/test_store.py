"""Entries are whole or absent, made once, and made anew where they are not what was written."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casl_bench.cache import store as store_module
from casl_bench.cache.store import (
    HASHED_ON_OPEN,
    SIDECAR,
    Cache,
    CacheError,
    CacheKey,
)
from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import write_bytes

KEY = CacheKey("fits", {"seed": 0})


def fill(folder: Path) -> None:
    write_bytes(folder / "a.bin", b"what was written")
    write_bytes(folder / "b.bin", b"and this")


def never(folder: Path) -> None:
    raise AssertionError("made again")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = Cache(tmp_path).get_or_make(KEY, fill)
    found = Cache(tmp_path).get_or_make(KEY, never)
    assert found.folder == made.folder
    assert (found.folder / "a.bin").read_bytes() == b"what was written"
    assert found.sidecar.inputs == {"seed": 0} and found.sidecar.seconds is not None


def _want(root: Path, log: Path, start: Any) -> None:
    def slowly(folder: Path) -> None:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.2)
        fill(folder)

    start.wait()
    entry = Cache(root).get_or_make(KEY, slowly)
    assert (entry.folder / "b.bin").read_bytes() == b"and this"


def test_six_processes_that_want_one_artifact_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(6)
    log = tmp_path / "log"
    jobs = [context.Process(target=_want, args=(tmp_path / "cache", log, start)) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0] * 6
    assert log.read_text() == "made\n"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def link(path: Path) -> None:
    content = path.with_name("elsewhere")
    path.rename(content)
    path.symlink_to(content)


@pytest.mark.parametrize(
    ("damage", "name"),
    [(d, n) for d in (flip, truncate, Path.unlink) for n in ("a.bin", "b.bin", SIDECAR)]
    + [(link, "a.bin")],
)
def test_a_damaged_entry_is_made_again_with_one_line(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    folder = Cache(tmp_path).get_or_make(KEY, fill).folder
    damage(folder / name)
    with pytest.raises(InvalidBenchmarkError, match="damaged"):
        Cache(tmp_path).find(KEY)
    lines: list[str] = []
    again = Cache(tmp_path, lines.append).get_or_make(KEY, fill)
    assert (again.folder / name).is_file() and not (again.folder / name).is_symlink()
    assert len(lines) == 1 and "damaged" in lines[0] and KEY.hash in lines[0]


def test_a_large_file_is_told_by_its_size_alone(tmp_path: Path) -> None:
    def large(folder: Path) -> None:
        with (folder / "x").open("wb") as file:
            file.truncate(HASHED_ON_OPEN + 1)

    folder = Cache(tmp_path).get_or_make(KEY, large).folder
    with (folder / "x").open("rb+") as file:
        file.write(b"!")
    assert Cache(tmp_path).find(KEY) is not None
    with (folder / "x").open("rb+") as file:
        file.truncate(5)
    with pytest.raises(InvalidBenchmarkError):
        Cache(tmp_path).find(KEY)


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "..", "a\\..\\b"])
def test_a_sidecar_that_leads_out_of_its_entry_is_damaged(tmp_path: Path, name: str) -> None:
    from casl_bench.core.files import hash_json

    folder = Cache(tmp_path).get_or_make(KEY, fill).folder
    said = json.loads((folder / SIDECAR).read_text())
    del said["check"]
    said["files"][name] = said["files"].pop("a.bin")
    (folder / SIDECAR).write_text(json.dumps({"check": hash_json(said), **said}))
    with pytest.raises(InvalidBenchmarkError, match="leads out"):
        Cache(tmp_path).find(KEY)


def test_another_entrys_sidecar_is_damage(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    other = cache.get_or_make(CacheKey("fits", {"seed": 1}), fill).folder
    own = cache.get_or_make(KEY, fill).folder
    (own / SIDECAR).write_bytes((other / SIDECAR).read_bytes())
    with pytest.raises(InvalidBenchmarkError, match="another entry"):
        cache.find(KEY)


def test_interrupted_making_goes_on_and_nobody_has_measured_it(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get_or_make(KEY, interrupted)
    assert Cache(tmp_path).find(KEY) is None

    def resumed(folder: Path) -> None:
        (folder / "half").rename(folder / "whole")

    entry = Cache(tmp_path).get_or_make(KEY, resumed)
    assert set(entry.sidecar.files) == {"whole"} and entry.sidecar.seconds is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_one_line_and_leaves_no_entry(tmp_path: Path, wrapped: bool) -> None:
    def full(folder: Path) -> None:
        error = OSError(errno.ENOSPC, "No space left on device")
        if wrapped:
            raise UsageError("cannot write") from error
        raise error

    with pytest.raises(CacheError, match=r"No space left on device.*cache prune") as fault:
        Cache(tmp_path).get_or_make(KEY, full)
    assert "\n" not in str(fault.value)
    assert not Cache(tmp_path).folder(KEY).exists()


@pytest.mark.parametrize("here", [True, False])
def test_a_full_disk_elsewhere_is_not_the_caches(tmp_path: Path, here: bool) -> None:
    """A record is made in the run folder first, which may lie on another disk."""
    root, run = tmp_path / "cache", tmp_path / "run"

    def full(folder: Path) -> None:
        where = folder if here else run
        raise UsageError("cannot write: full", where=str(where)) from OSError(errno.ENOSPC, "full")

    with pytest.raises(UsageError, match="full") as fault:
        Cache(root).get_or_make(KEY, full)
    assert isinstance(fault.value, CacheError) == here
    assert ("cache prune" in str(fault.value)) == here
    assert (str(run) in str(fault.value)) != here


def test_a_strangers_own_fault_stays_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cache(tmp_path).get_or_make(KEY, lambda folder: (folder / "no" / "file").read_bytes())


def test_a_read_only_cache_is_read_and_refuses_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path).get_or_make(KEY, fill)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "rename", "unlink", "touch"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(store_module, "FileLock", refuse)
    Cache(tmp_path).get_or_make(KEY, never)
    with pytest.raises(CacheError, match="Read-only file system"):
        Cache(tmp_path).get_or_make(CacheKey("fits", {"seed": 1}), fill)


def test_a_cache_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot write the cache"):
        Cache(tmp_path / "file").get_or_make(KEY, fill)


def test_a_clock_that_goes_backwards_does_no_harm(tmp_path: Path) -> None:
    folder = Cache(tmp_path).get_or_make(KEY, fill).folder
    future = time.time() + 10 * 365 * 86400
    for path in (folder, folder / SIDECAR, folder / "a.bin"):
        os.utime(path, (future, future))
    Cache(tmp_path).get_or_make(KEY, never)
    assert (folder / SIDECAR).stat().st_mtime < future


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="inversions"):
        CacheKey("../elsewhere", {})


def test_a_waiting_thread_takes_what_the_other_made(tmp_path: Path) -> None:
    begun, made = threading.Event(), []

    def slowly(folder: Path) -> None:
        begun.set()
        time.sleep(0.1)
        made.append(1)
        fill(folder)

    first = threading.Thread(target=lambda: Cache(tmp_path).get_or_make(KEY, slowly))
    first.start()
    begun.wait(10)
    Cache(tmp_path).get_or_make(KEY, never)
    first.join()
    assert made == [1]
