"""Published tables are functions of the committed records."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.cli.main import main
from casl_bench.results.run_folder import jsonl_files, read_jsonl

ROOT = Path(__file__).parents[2]
COMMITTED = jsonl_files(ROOT / "leaderboards" / "archive")


def test_no_record_is_quick_or_of_a_changed_checkout() -> None:
    records = [r for path in COMMITTED for r in read_jsonl(path)]
    assert records
    assert not any(r.suite.quick for r in records)
    assert {r.provenance.git_dirty for r in records} == {False}


def test_the_pages_are_those_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["leaderboard", "--check"]) == 0
