"""The committed leaderboards through the command line: whole, made anew to the byte, guarded."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOARDS = ROOT / "leaderboards"
(ARCHIVED,) = (BOARDS / "archive").glob("*.jsonl.gz")


def bench(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmark.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.md")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leaderboards made of the committed records."""
    out = tmp_path_factory.mktemp("copy") / "leaderboards"
    shutil.copytree(BOARDS, out, ignore=shutil.ignore_patterns("*.md"))
    done = bench("leaderboard", "--records", str(out / "records"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def test_made_again_it_is_the_same_to_the_byte(made: Path, tmp_path: Path) -> None:
    done = bench("leaderboard", "--records", str(made / "records"), "--out", str(tmp_path),
                 hash_seed="1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert content(tmp_path) == content(made)
    assert {"README.md", "archive/README.md"} <= set(content(made))
    assert sum(map(len, content(made).values())) < 150_000


def test_the_committed_pages_are_those_of_the_committed_records(made: Path) -> None:
    assert content(BOARDS) == content(made)


def test_a_page_edited_by_hand_is_refused(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(made, out)
    arguments = ("leaderboard", "--records", str(out / "records"), "--out", str(out), "--check")
    page = out / "archive" / "README.md"
    page.write_text(page.read_text(encoding="utf-8") + "Better than all others.\n")
    done = bench(*arguments)
    assert done.returncode == 5
    assert "archive/README.md is stale or was edited by hand" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tampered_record_is_refused(tmp_path: Path) -> None:
    lines = gzip.decompress(ARCHIVED.read_bytes()).decode().splitlines()
    place = next(i for i, x in enumerate(lines) if "flip_rate" in json.loads(x)["measurements"])
    record = json.loads(lines[place])
    record["measurements"]["flip_rate"] |= {"value": 1.0, "status": "ok", "reason": None}
    lines[place] = json.dumps(record)
    tampered = tmp_path / "tampered.jsonl"
    tampered.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = bench("submit", str(tampered), "--records", str(tmp_path / "records"))
    assert done.returncode == 5
    assert f"tampered.jsonl:{place + 1}" in done.stderr
    assert "its id does not match its content" in done.stderr
    assert not (tmp_path / "records").exists()


def test_what_is_archived_is_not_added_again(made: Path) -> None:
    records = str(made / "records")
    done = bench("submit", str(ARCHIVED), "--records", records, "--name", "again")
    assert done.returncode == 5
    assert "records are not of schema 3" in done.stderr
    assert not list((made / "records").glob("again*"))
