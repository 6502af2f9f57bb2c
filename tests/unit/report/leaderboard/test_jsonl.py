"""Files of records: packed or plain they hold the same, and damaged ones are refused in a line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from casl_bench.core import files
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import jsonl_files, jsonl_stem, read_jsonl, write_jsonl


def test_packed_and_plain_files_hold_the_same_records(
    tmp_path: Path, whole: list[RunRecord]
) -> None:
    plain, packed = tmp_path / "b.jsonl", tmp_path / "a.b.jsonl.gz"
    for path in (plain, packed):
        write_jsonl(path, whole)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert read_jsonl(packed) == read_jsonl(plain) == whole
    assert jsonl_files(tmp_path) == [packed, plain]
    assert [jsonl_stem(p) for p in (packed, plain)] == ["a.b", "b"]


def test_the_same_records_give_the_same_bytes_at_any_time(
    tmp_path: Path, whole: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = tmp_path / "1.jsonl.gz", tmp_path / "2.jsonl.gz"
    for path, now in zip(paths, (1e9, 2e9), strict=True):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_jsonl(path, whole)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_bad_line_is_named(tmp_path: Path, whole: list[RunRecord]) -> None:
    path = tmp_path / "records.jsonl"
    write_jsonl(path, whole[:1])
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(InvalidBenchmarkError, match=r"records\.jsonl:2"):
        read_jsonl(path)
    with pytest.raises(InvalidBenchmarkError, match="cannot read"):
        read_jsonl(tmp_path / "absent")


def test_a_damaged_or_swollen_packed_file_is_refused(
    tmp_path: Path, whole: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl.gz"
    write_jsonl(path, whole)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for bad in (good[:-20], bytes(flipped), b"{}\n", good + b"more"):
        path.write_bytes(bad)
        with pytest.raises(InvalidBenchmarkError, match="cannot read"):
            read_jsonl(path)
    path.write_bytes(good)
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    with pytest.raises(InvalidBenchmarkError, match="once unpacked"):
        read_jsonl(path)
    monkeypatch.undo()
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    with pytest.raises(InvalidBenchmarkError, match="a line of more than"):
        read_jsonl(path)
