"""Listing, pruning and verifying, through the command line and beside a reader."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from casl_bench.cache.maintenance import delete, select_for_pruning, stored_in
from casl_bench.cache.store import SIDECAR, Cache, CacheKey, Entry
from casl_bench.cli.main import main

DAY = 86400.0


def entry(root: Path, kind: str, number: int, size: int = 1000, unused: float = 0.0) -> Path:
    key = CacheKey(kind, {"number": number, "about": [kind, f"number {number}"]})
    folder = Cache(root).get_or_make(key, lambda f: (f / "x").write_bytes(b"x" * size)).folder
    then = time.time() - unused
    os.utime(folder / SIDECAR, (then, then))
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [
        entry(tmp_path, "fits", 0, unused=3 * DAY),
        entry(tmp_path, "fits", 1, unused=DAY / 2),
        entry(tmp_path, "sae", 2, size=5000, unused=2 * DAY),
    ]


def command(root: Path, *arguments: str) -> int:
    return main(["cache", arguments[0], "--cache", str(root), *arguments[1:]])


def test_ls_tells_what_there_is(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [three.index(p) for line in lines for p in three if p.name[:12] in line] == [0, 2, 1]
    assert "number 2" in lines[3] and "3 d" in lines[2] and "3 entries" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--older-than", "1d"), {1}),
        (("--older-than", "1d", "--kind", "sae"), {0, 1}),
        (("--size-budget", "7kB"), {1, 2}),
        (("--size-budget", "0"), set()),
        (("--size-budget", "1GB"), {0, 1, 2}),
        (("--kind", "fits"), {2}),
        (("--older-than", "1d", "--dry-run"), {0, 1, 2}),
    ],
)
def test_prune_deletes_the_longest_unused(
    three: list[Path], tmp_path: Path, arguments: tuple[str, ...], left: set[int]
) -> None:
    assert command(tmp_path, "prune", *arguments) == 0
    assert {i for i, folder in enumerate(three) if folder.exists()} == left


@pytest.mark.parametrize("arguments", [(), ("--size-budget", "much"), ("--kind", "../fits")])
def test_prune_asks_what_may_go(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert command(tmp_path, "prune", *arguments) == 2


def test_what_is_read_or_made_is_not_pruned(three: list[Path], tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first, second, _ = stored_in(tmp_path)
    assert first.sidecar is not None and second.sidecar is not None
    reader: Entry | None = cache.find(first.sidecar.key)
    assert reader is not None
    assert not delete(tmp_path, first)
    with cache.lock(second.sidecar.key):
        assert not delete(tmp_path, second)
    assert first.folder.exists() and second.folder.exists()
    del reader
    assert delete(tmp_path, first) and delete(tmp_path, second)


def test_a_use_in_the_future_counts_as_one_of_now(three: list[Path], tmp_path: Path) -> None:
    later = time.time() + 100 * DAY
    os.utime(three[0] / SIDECAR, (later, later))
    entries = list(stored_in(tmp_path))
    assert {three.index(e.folder) for e in select_for_pruning(entries, older_than=DAY)} == {2}
    assert [three.index(e.folder) for e in select_for_pruning(entries, size_budget=0)] == [2, 1, 0]


def test_verify_finds_a_flipped_byte_and_may_delete_it(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "verify") == 0
    (three[1] / "x").write_bytes(b"y" + b"x" * 999)
    assert command(tmp_path, "verify") == 5
    assert three[1].name in capsys.readouterr().out
    assert command(tmp_path, "verify", "--delete-damaged") == 0
    assert not three[1].exists() and three[0].exists()
    assert command(tmp_path, "verify") == 0


def test_unfinished_work_is_listed_and_pruned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_bytes(b"x" * 10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get_or_make(CacheKey("sae", {}), interrupted)
    command(tmp_path, "ls")
    assert "unfinished" in capsys.readouterr().out
    command(tmp_path, "prune", "--size-budget", "0")
    assert not list(stored_in(tmp_path))
