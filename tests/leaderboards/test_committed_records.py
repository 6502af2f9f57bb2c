"""Published tables are functions of the committed records; the README quotes them to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from casl_bench.records.record_store import read_jsonl
from casl_bench.reports.table import render_tables

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "leaderboards" / "records").glob("*.jsonl"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_the_table_is_that_of_its_records(path: Path) -> None:
    page = ROOT / "leaderboards" / f"{path.stem}.md"
    assert page.read_text(encoding="utf-8") == render_tables(read_jsonl(path))


def test_no_record_is_quick_or_of_a_changed_checkout() -> None:
    records = [r for path in COMMITTED for r in read_jsonl(path)]
    assert records
    assert not any(r.suite.quick for r in records)
    assert {r.provenance.git_dirty for r in records} == {False}


def test_every_table_row_of_the_readme_is_in_a_published_table() -> None:
    pages = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "leaderboards").glob("*.md"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.search(r"<!-- table -->\n(.*?)<!-- /table -->", readme, re.DOTALL)
    assert quoted is not None
    rows = [line for line in quoted[1].splitlines() if line.startswith("|")]
    assert len(rows) > 5
    for row in rows:
        assert row in pages
