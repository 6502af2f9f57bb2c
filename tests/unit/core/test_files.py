"""Files are whole or absent, and an unwritable folder is one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from casl_bench.core import files
from casl_bench.core.errors import UsageError


def test_a_file_is_replaced_as_a_whole_and_leaves_no_sibling(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    files.write_text(path, "old")
    files.write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_failure_before_the_rename_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full_disk(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UsageError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_written_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    files.write_text(tmp_path / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_a_folder_below_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for act in (
        lambda: files.make_folder(tmp_path / "file" / "out"),
        lambda: files.write_text(tmp_path / "file" / "out" / "a", "x"),
    ):
        with pytest.raises(UsageError) as caught:
            act()
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


def test_json_is_sorted_and_refuses_what_json_lacks(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            files.write_json(tmp_path / "b.json", {"a": bad})
    assert not (tmp_path / "b.json").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (files.read_json, files.hash_file, files.FileSum.of):
        with pytest.raises(OSError, match="a pipe or a device, not a file"):
            read(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        files.regular(tmp_path / "absent")


def test_a_file_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(UsageError, match=r"unreadable thing: more than 256 MiB \(.*sparse.json"):
        files.read_checked(Thing, path, "thing", error=UsageError)
    path.write_text("{}")
    assert files.read_checked(Thing, path, "thing") == Thing()


class Thing(BaseModel):
    pass


def test_what_killed_processes_left_half_written_is_deleted(tmp_path: Path) -> None:
    (tmp_path / f"{files.PARTIAL}abc" / "cell").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / f"{files.PARTIAL}def").touch()
    (tmp_path / "kept").touch()
    files.clear_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept", "pictures"]


def test_a_killed_write_leaves_what_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *args, **settings: None)  # killed: no cleaning up
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "manifest.json", "{}")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] != []
    files.clear_partial(tmp_path)
    assert list(tmp_path.iterdir()) == []


def interrupt(descriptor: int) -> None:
    raise KeyboardInterrupt


def test_a_new_file_is_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "array.npy"
    with files.new_file(path) as file:
        file.write(b"whole")
    with pytest.raises(ZeroDivisionError), files.new_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"whole" and [*path.parent.iterdir()] == [path]


def test_a_folder_is_written_aside_and_what_a_killed_process_left_of_it_goes(
    tmp_path: Path,
) -> None:
    left, another = (tmp_path / f"{files.PARTIAL}{name}-x1" for name in ("net", "nets"))
    for folder in (left, another):
        (folder / "folder").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), files.partial_folder(tmp_path, "net") as aside:
        (aside / "weights").touch()
        assert aside.parent == tmp_path and not left.exists()
        raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == [another]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"), files.partial_folder(tmp_path / "file"):
        pass
