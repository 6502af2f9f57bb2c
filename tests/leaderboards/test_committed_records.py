"""Published tables are functions of the committed records."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from casl_bench.cli.main import main
from casl_bench.results.record import RunRecord
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


def test_the_papers_questions_are_answered_from_committed_records(tmp_path: Path) -> None:
    studies, (records,) = ROOT / "docs" / "studies", COMMITTED
    shutil.copy(studies / "paper_questions.jsonl", tmp_path)
    assert main(["study", "paper-questions", str(records), "--out", str(tmp_path)]) == 0
    page = "paper_questions.md"
    assert (tmp_path / page).read_text("utf-8") == (studies / page).read_text("utf-8")


@pytest.mark.parametrize("of", ["rows", "records"])
@pytest.mark.parametrize("kept", [0.0, 0.7])
def test_a_measurement_that_nobody_made_counts_nowhere(
    of: str, kept: float, tmp_path: Path
) -> None:
    rng = random.Random(of)

    def thinned(line: str) -> str:
        stored = json.loads(line)
        for part in (stored, *stored.get("levels", ()), *stored.get("curve", ())):
            names = part.get("measurements", {})
            part["measurements"] = {n: m for n, m in names.items() if rng.random() < kept}
        if of == "rows":
            return json.dumps(stored)
        own = {k: v for k, v in stored.items() if k not in ("record_id", "provenance_id")}
        return json.dumps(RunRecord.model_validate_json(json.dumps(own)).to_json())

    rows = (ROOT / "docs/studies/paper_questions.jsonl").read_text("utf-8").splitlines()
    records = [json.dumps(r.to_json()) for r in read_jsonl(COMMITTED[0])]
    if of == "rows":
        rows = [rows[0], *map(thinned, rows[1:])]
    else:
        records = [*map(thinned, records)]
    for name, lines in (("paper_questions.jsonl", rows), ("records.jsonl", records)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["study", "paper-questions", str(tmp_path / "records.jsonl"), "--out", str(tmp_path)]
    assert main(command) == 0
    page = (tmp_path / "paper_questions.md").read_text("utf-8")
    assert page != (ROOT / "docs/studies/paper_questions.md").read_text("utf-8")
    assert kept or "—" in page
