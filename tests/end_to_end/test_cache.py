"""Runs over a shared cache: taken over, damaged, in two processes, and ended at any moment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casl_bench.cache import store as entry_module
from casl_bench.cache import store as store_module
from casl_bench.cache.store import KINDS, SIDECAR, Cache, CacheKey
from casl_bench.cli import main as cli
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.stops import EXIT_INTERRUPTED
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import BufferedProgress
from casl_bench.runs.suites import SUITES, RunConfig
from tests.support.tiny_suite import tiny_suite

PLUGIN = (Path(__file__).parents[1] / "plugin" / "toy_world_plugin.py").resolve()
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_entrants")]

MOMENTS = int(os.environ.get("CASL_BENCH_KILL_MOMENTS", "2"))
"""How many runs are killed, each in its own part of the run; each costs a run and a half."""


def run(out: Path, cache: Path, **changes: Any) -> list[str]:
    load_registries((PLUGIN,))
    settings: dict[str, Any] = {
        "methods": ("casl",), "datasets": ("toy_shapes",), "concepts": None, "seed": 0,
        "suite": tiny_suite(), "device": "cpu", "out": out, "cache": cache, "plugins": (PLUGIN,),
    }  # fmt: skip
    notes = BufferedProgress()
    assert runner.run(RunConfig(**(settings | changes)), notes) == 0
    return notes.lines


def ids(out: Path) -> dict[str, str]:
    return {f"{r.kind} {r.method}@{r.beside} {r.concept}": r.record_id for r in RecordStore(out)}


@pytest.fixture(scope="module")
def timed(own_entrants: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a finished run with its cache, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("first")
    began = time.monotonic()
    run(folder / "run", folder / "cache")
    return folder, time.monotonic() - began


@pytest.fixture(scope="module")
def first(timed: tuple[Path, float]) -> tuple[Path, Path]:
    """A finished run and its cache."""
    return timed[0] / "run", timed[0] / "cache"


def test_another_run_folder_fits_and_inverts_nothing(
    first: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(Cache, "_make", fail)
    out, cache = first
    run(tmp_path / "again", cache)
    assert ids(tmp_path / "again") == ids(out)
    for path in (out / "cells").rglob("*"):
        if path.suffix in (".npz",):
            assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_another_seed_shares_inversions_and_nothing_else(
    first: tuple[Path, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(first[1], cache)
    before = {
        kind: {p.name for p in (cache / kind).iterdir()} for kind in ("inversions", "sae", "fits")
    }
    run(tmp_path / "seed", cache, seed=1)
    new = {kind: {p.name for p in (cache / kind).iterdir()} - before[kind] for kind in before}
    assert not new["inversions"] and new["sae"] and new["fits"]
    assert set(ids(tmp_path / "seed").values()).isdisjoint(ids(first[0]).values())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damage_in_every_file_is_found_and_mended(
    first: tuple[Path, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out, cache = first[0], tmp_path / "cache"
    shutil.copytree(first[1], cache)
    entries = entries_of(cache)
    assert {entry.parent.name for entry in entries} == set(KINDS)
    for entry in entries:
        for path in entry.iterdir():
            if path.name != SIDECAR:
                damage(path)
    lines = run(tmp_path / "again", cache)
    assert ids(tmp_path / "again") == ids(out)
    assert {e.name for e in entries if any(e.name in line for line in lines)} == {
        e.name for e in entries
    }


def test_a_flipped_byte_in_a_file_too_large_to_be_hashed_at_once(
    first: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process looks before it first uses the file; the same command then mends it."""
    for module in (entry_module, store_module):
        monkeypatch.setattr(module, "HASHED_ON_OPEN", 10_000)
    cache = tmp_path / "cache"
    shutil.copytree(first[1] / "inversions", cache / "inversions")
    damaged = {path.parent for path in cache.rglob("h-*.npy") if not flip(path)}
    assert len(damaged) == 2 and all(
        path.stat().st_size > 10_000 for folder in damaged for path in folder.glob("h-*.npy")
    )
    for _ in damaged:
        with pytest.raises(InvalidBenchmarkError, match=r"h-00000.npy.*run the same command again"):
            run(tmp_path / "again", cache)
    run(tmp_path / "again", cache)
    assert ids(tmp_path / "again") == ids(first[0])


def entries_of(cache: Path) -> list[Path]:
    return [p for p in cache.glob("*/*") if p.is_dir() and not p.name.startswith(".")]


# In processes of their own -------------------------------------------------------------------


def _child(out: Path, cache: Path, log: Path) -> None:
    """A run that writes down the kind and key of everything whose making it begins."""
    make = Cache._make

    def logged(self: Cache, key: CacheKey, *rest: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{key.kind} {key.hash}\n")
        return make(self, key, *rest)

    Cache._make = logged  # type: ignore[method-assign]
    run(out, cache)


def _command(out: Path, cache: Path, said: Path) -> None:
    """The same through the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    SUITES["tiny"] = tiny_suite()
    with said.open("w") as file, contextlib.redirect_stderr(file):
        code = cli.main(
            ["--methods", "casl", "--datasets", "toy_shapes", "--suite", "tiny",
             "--plugin", str(PLUGIN), "--out", str(out), "--cache", str(cache)]
        )  # fmt: skip
    sys.exit(code)


def start(work: Callable[..., None], *arguments: Path) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["casl_bench.cli.main", "casl_bench.runs.executor"])
    child = context.Process(target=work, args=arguments)
    child.start()
    return child


def begun(log: Path) -> Counter[tuple[str, str]]:
    return Counter((kind, key) for kind, key in map(str.split, log.read_text().splitlines()))


@pytest.mark.slow
def test_killed_at_any_moment_the_records_are_those_of_an_uninterrupted_run(
    timed: tuple[Path, float], tmp_path: Path, moments: random.Random
) -> None:
    expected = ids(timed[0] / "run")
    for number in range(MOMENTS):
        out, cache, log = (tmp_path / f"{name}-{number}" for name in ("out", "cache", "log"))
        child = start(_child, out, cache, log)
        moment = (number + moments.random()) / MOMENTS * timed[1]
        print(f"killed after {moment:.2f} of {timed[1]:.2f} s")
        time.sleep(moment)
        child.kill()
        child.join()
        again = start(_child, out, cache, log)
        again.join()
        assert again.exitcode == 0
        assert ids(out) == expected
        assert not list(cache.glob("*/.*.making"))
        # At most what was being made, and what was being made for it.
        twice = Counter(kind for (kind, _), count in begun(log).items() if count > 1)
        assert all(count <= 1 for count in twice.values()), twice


@pytest.mark.slow
def test_two_processes_make_everything_once(first: tuple[Path, Path], tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    outs = [tmp_path / "one", tmp_path / "two"]
    for child in [start(_child, out, cache, log) for out in outs]:
        child.join()
        assert child.exitcode == 0
    assert set(begun(log).values()) == {1}
    assert {kind for kind, _ in begun(log)} == set(KINDS)
    assert len(begun(log)) == len(entries_of(cache))
    assert ids(outs[0]) == ids(outs[1]) == ids(first[0])


@pytest.mark.slow
def test_an_interrupted_command_says_one_line_and_goes_on(
    first: tuple[Path, Path], tmp_path: Path
) -> None:
    out, cache, said = tmp_path / "out", tmp_path / "cache", tmp_path / "said"
    child = start(_command, out, cache, said)
    while child.is_alive() and not list(cache.glob("fits/[0-9a-f]*")):
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    child.join()
    assert child.exitcode == EXIT_INTERRUPTED
    lines = said.read_text().splitlines()
    assert lines[-1] == "interrupted; run the same command again to go on"
    assert not any("Traceback" in line or "Error" in line for line in lines)
    again = start(_command, out, cache, said)
    again.join()
    assert again.exitcode == 0
    assert ids(out) == ids(first[0])
