"""Files are whole or absent, and an unwritable folder is one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
