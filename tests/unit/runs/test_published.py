"""A published run comes back as it was, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from filelock import FileLock
from fsspec.implementations.memory import MemoryFileSystem

from casl_bench.cli import main as cli
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.runs.published import LISTING, fetch, publish

ADDRESS = "memory://bucket/part-1"
RESULTS = {
    "manifest.json": "{}\n", "plan.json": '{"shard": "1/2"}\n', "records.jsonl": "\n",
    "table.md": "| |\n", "cells/a/%2E b/c/scores.csv": "1\n", "pictures/a/b.png": "png",
}  # fmt: skip
BESIDE = (".lock", ".cache/fits/x", "error.log", "receipt.json", "attempts/a.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fill(tmp_path / "run", RESULTS | dict.fromkeys(BESIDE, "mine"))


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def fill(folder: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    paths = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in paths}


@pytest.mark.parametrize("place", ["memory", "file"])
def test_results_and_nothing_else_come_back(
    run: Path, store: MemoryFileSystem, tmp_path: Path, place: str
) -> None:
    address = ADDRESS if place == "memory" else (tmp_path / "deep" / "store").as_uri()
    assert publish(run, address) == len(RESULTS)
    assert publish(run, address) == 0
    fetch(address, tmp_path / "back")
    assert content(tmp_path / "back") == RESULTS
    fill(run, {"records.jsonl": "more\n"})
    (run / "table.md").unlink()
    assert publish(run, address) == len(RESULTS) - 1
    fetch(address, tmp_path / "again")  # what is no result any more does not come
    left = {name: text for name, text in RESULTS.items() if name != "table.md"}
    assert content(tmp_path / "again") == left | {"records.jsonl": "more\n"}


@pytest.mark.parametrize("published_before", [False, True])
def test_an_upload_that_was_cut_is_no_run_until_it_is_pushed_again(
    run: Path,
    store: MemoryFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published_before: bool,
) -> None:
    if published_before:
        publish(run, ADDRESS)
        fill(run, {"records.jsonl": "more\n"})
    put = MemoryFileSystem.put_file

    def cut(self: MemoryFileSystem, here: str, there: str, **rest: object) -> None:
        if there.endswith("records.jsonl"):
            raise OSError("the line is cut")
        put(self, here, there, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", cut)
        with pytest.raises(UsageError, match="the line is cut"):
            publish(run, ADDRESS)
    assert store.exists(f"{ADDRESS}/manifest.json")
    with pytest.raises(UsageError, match=r"did not come to its end.*casl-bench push"):
        fetch(ADDRESS, tmp_path / "back")
    publish(run, ADDRESS)
    listing = store.cat_file(f"{ADDRESS}/{LISTING}")
    store.pipe_file(f"{ADDRESS}/{LISTING}", listing[:-20])
    with pytest.raises(InvalidBenchmarkError, match="makes no sense"):
        fetch(ADDRESS, tmp_path / "back")
    publish(run, ADDRESS)
    fetch(ADDRESS, tmp_path / "back")
    assert content(tmp_path / "back").keys() == RESULTS.keys()


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/out", "..", "", ".", "a\\..\\out", "c:out", "a\0"]
)
def test_no_name_leads_out_of_the_folder(
    run: Path, store: MemoryFileSystem, tmp_path: Path, name: str
) -> None:
    publish(run, ADDRESS)
    listing = json.loads(store.cat_file(f"{ADDRESS}/{LISTING}"))
    listing["files"][name] = listing["files"].pop("records.jsonl")
    store.pipe_file(f"{ADDRESS}/{LISTING}", json.dumps(listing).encode())
    with pytest.raises(InvalidBenchmarkError, match="leads out"):
        fetch(ADDRESS, tmp_path / "back" / "part")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("changed", [b"\r", b"\n\n", None])
def test_a_file_that_was_changed_is_refused(
    run: Path, store: MemoryFileSystem, tmp_path: Path, changed: bytes | None
) -> None:
    publish(run, ADDRESS)
    store.rm_file(f"{ADDRESS}/records.jsonl")
    if changed is not None:
        store.pipe_file(f"{ADDRESS}/records.jsonl", changed)
    with pytest.raises(InvalidBenchmarkError, match=r"is not what was published|is gone"):
        fetch(ADDRESS, tmp_path / "back")


def test_another_part_is_not_overwritten(run: Path, store: MemoryFileSystem) -> None:
    publish(run, ADDRESS)
    before = dict(store.store)
    fill(run, {"plan.json": '{"shard": "2/2"}\n'})
    with pytest.raises(UsageError, match=r"another part of one.*plan\.json differs"):
        publish(run, ADDRESS)
    assert store.store == before


def test_a_run_at_work_is_not_published(run: Path, store: MemoryFileSystem) -> None:
    with (
        FileLock(run / ".lock"),
        pytest.raises(UsageError, match="another process is running"),
    ):
        publish(run, ADDRESS)
    assert not store.store


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("s3://bucket/part", "pip install s3fs"),
        ("s4://bucket/part", "unknown protocol 's4'; did you mean 's3'"),
        ("bucket/part", "no address"),
        ("file:///proc/no/such", "check the address"),
    ],
)
def test_a_place_that_cannot_be_had_is_told_in_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    match: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    assert cli.main(["push", str(run), address]) == 2
    line = capsys.readouterr().err
    assert match in line and line.startswith("error: ") and line.count("\n") == 1
    assert address in line or "s4" in address


def test_push_says_what_it_has_done(
    run: Path, store: MemoryFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for said in (f"{len(RESULTS)} files copied", "all of it is there already"):
        assert cli.main(["push", str(run), ADDRESS]) == 0
        assert capsys.readouterr().err == f"{said}: {ADDRESS}\n"
    assert cli.main(["push", str(tmp_path), ADDRESS]) == 2
    assert "no run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["--out", "s3://bucket/run"], ["--cache", "s3://bucket/cache"],
        ["merge", "s3://bucket/run", "part-1"], ["cache", "ls"],
    ],
)  # fmt: skip
def test_an_address_is_no_folder(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if command[0] == "cache":
        monkeypatch.setenv("CASL_BENCH_CACHE", "s3://bucket/cache")
    assert cli.main(command) == 2
    assert "is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
