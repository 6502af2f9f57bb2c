"""Runs over a shared cache: taken over, damaged, and killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casl_bench.backbones.backbone import Backbone
from casl_bench.cache.entry import SIDECAR
from casl_bench.images.dataset import DATASETS
from casl_bench.methods.method import METHODS
from casl_bench.records.record_store import RecordStore
from casl_bench.runs.execution import runner
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.runs.watching.progress import SilentProgress
from casl_bench.testing.tiny_suite import tiny_suite
from casl_bench.worlds.world import WORLDS

PLUGIN = (Path(__file__).parents[1] / "plugin" / "toy_world_plugin.py").resolve()
MOMENTS = int(os.environ.get("CASL_BENCH_KILL_MOMENTS", "2"))
"""How many runs are killed; each costs a run and a half."""


class Notes(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def run(out: Path, cache: Path, **changes: Any) -> list[str]:
    load_entrants((PLUGIN,))
    settings: dict[str, Any] = {
        "methods": ("casl",), "datasets": ("toy_shapes",), "concepts": None, "seed": 0,
        "suite": tiny_suite(), "device": "cpu", "out": out, "cache": cache, "plugins": (PLUGIN,),
    }  # fmt: skip
    notes = Notes()
    assert runner.run(RunConfig(**(settings | changes)), notes) == 0
    return notes.lines


def ids(out: Path) -> dict[str, str]:
    return {f"{r.kind} {r.method}@{r.beside} {r.concept}": r.record_id for r in RecordStore(out)}


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    load_entrants()
    with pytest.MonkeyPatch.context() as patch:
        for registry in (METHODS, DATASETS, WORLDS):
            patch.setattr(registry, "_factories", dict(registry._factories))
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run and its cache."""
    folder = tmp_path_factory.mktemp("first")
    run(folder / "run", folder / "cache")
    return folder / "run", folder / "cache"


def test_another_run_folder_takes_all_of_it_without_a_unet_call(
    first: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("a U-Net pass")

    monkeypatch.setattr(Backbone, "encode", fail)
    monkeypatch.setattr(Backbone, "decode", fail)
    out, cache = first
    run(tmp_path / "again", cache)
    assert ids(tmp_path / "again") == ids(out)
    for path in (out / "cells").rglob("*"):
        if path.suffix in (".csv", ".npz"):
            assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_another_seed_shares_inversions_and_nothing_else(
    first: tuple[Path, Path], tmp_path: Path
) -> None:
    cache = first[1]
    before = {
        kind: {p.name for p in (cache / kind).iterdir()} for kind in ("inversions", "sae", "fits")
    }
    run(tmp_path / "seed", cache, seed=1)
    new = {kind: {p.name for p in (cache / kind).iterdir()} - before[kind] for kind in before}
    assert not new["inversions"] and new["sae"] and new["fits"]
    assert set(ids(tmp_path / "seed").values()).isdisjoint(ids(first[0]).values())


def test_a_flipped_byte_in_every_file_is_found_and_mended(
    first: tuple[Path, Path], tmp_path: Path
) -> None:
    out, cache = tmp_path / "own", tmp_path / "cache"
    run(out, cache)
    entries = {p for p in cache.glob("*/*") if p.is_dir() and not p.name.startswith(".")}
    for entry in entries:
        for path in entry.iterdir():
            if path.name != SIDECAR:
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 1
                path.write_bytes(content)
    lines = run(tmp_path / "again", cache)
    assert ids(tmp_path / "again") == ids(out)
    assert {e.name for e in entries if any(e.name in line for line in lines)} == {
        e.name for e in entries
    }


def _child(out: Path, cache: Path) -> None:
    run(out, cache)


@pytest.mark.slow
def test_killed_at_any_moment_the_records_are_those_of_an_uninterrupted_run(
    first: tuple[Path, Path], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["casl_bench.runs.execution.runner"])

    def start(out: Path, cache: Path) -> Any:
        child = context.Process(target=_child, args=(out, cache))
        child.start()
        return child

    start(tmp_path / "warm", tmp_path / "warm-cache").join()
    began = time.monotonic()
    start(tmp_path / "timed", tmp_path / "timed-cache").join()
    whole = time.monotonic() - began
    assert ids(tmp_path / "timed") == ids(tmp_path / "warm")
    moments = random.Random(0)
    for number in range(MOMENTS):
        out, cache = tmp_path / f"out-{number}", tmp_path / f"cache-{number}"
        child = start(out, cache)
        time.sleep(moments.uniform(0.05, 0.95) * whole)
        child.kill()
        child.join()
        again = start(out, cache)
        again.join()
        assert again.exitcode == 0
        assert ids(out) == ids(tmp_path / "timed")
        assert not list(cache.glob("*/.*.making"))
