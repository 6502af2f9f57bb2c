"""The end of a run: who is first, on one screen, and where the rest lies."""

from __future__ import annotations

from pathlib import Path

from casl_bench.analysis.analyse import NUMBERS_FILE, analyse
from casl_bench.report.run_report import MOST_LINES, summary_text, who_is_first, write_run_report
from casl_bench.results.record import ErrorInfo, SuiteRef
from casl_bench.results.run_folder import write_jsonl
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run


def made_up(folder: Path, count: int = 3, **changes: object) -> list:  # type: ignore[type-arg]
    methods = {f"method_{i:02d}": MadeUpMethod(damage=0.05 + 0.6 * i) for i in range(count)}
    write_made_up_run(folder, MadeUpRun(methods, changes=changes or None))
    return analyse([folder])


def test_it_names_who_may_be_first_and_where_the_rest_is(tmp_path: Path) -> None:
    text = summary_text(made_up(tmp_path), tmp_path)
    # Two concepts say too little to tell even these apart.
    assert "method_00, method_01 or method_02 may be first" in text
    assert "precise edits" in text and "EPR+" in text and "95 % intervals" in text
    assert f"casl-bench report {tmp_path}" in text and "table.md" in text


def test_one_method_is_first_where_no_other_may_be(tmp_path: Path) -> None:
    found = next(r.comparison for r in made_up(tmp_path) if r.comparison)
    ranked = [s.model_copy(update={"rank_low": k}) for k, s in enumerate(found.standings, 1)]
    alone = found.model_copy(update={"standings": tuple(ranked)})
    assert who_is_first(alone) == f"{ranked[0].method} is first"


def test_it_fits_a_screen_whatever_was_run(tmp_path: Path) -> None:
    text = summary_text(made_up(tmp_path, 30), tmp_path)
    assert len(text.splitlines()) <= MOST_LINES
    assert text.splitlines()[-1] == f"in a browser: casl-bench report {tmp_path}"


def test_a_suite_for_trying_out_shows_no_number(tmp_path: Path) -> None:
    records = made_up(tmp_path, suite=SuiteRef(name="quick", version=1, quick=True))
    text = summary_text(records, tmp_path)
    assert "method_00: 2 of 2 concepts done" in text and "no" in text
    assert "EPR" not in text and "[" not in text


def test_of_many_methods_tried_those_that_are_not_done_come_first(tmp_path: Path) -> None:
    records = made_up(tmp_path, 30, suite=SuiteRef(name="quick", version=1, quick=True))
    failed = {"status": "failed", "error": ErrorInfo(type="E", message="it")}
    records = [r.model_copy(update=failed) if r.method == "method_29" else r for r in records]
    lines = summary_text(records, tmp_path).splitlines()
    first = next(line for line in lines if " done" in line)
    assert first.startswith("  method_29: 0 of ")
    assert "  and 20 more, 20 of them done" in lines


def test_it_is_written_beside_the_tables(tmp_path: Path) -> None:
    write_jsonl(tmp_path / NUMBERS_FILE, made_up(tmp_path))
    text = write_run_report(tmp_path)
    assert (tmp_path / "summary.txt").read_text("utf-8") == text
    assert "### Methods compared" in (tmp_path / "table.md").read_text("utf-8")
    assert write_run_report(tmp_path / "absent") == ""
