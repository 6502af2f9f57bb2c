"""`leaderboard` and `submit` through the command line, on records that are made up."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casl_bench.analysis.measure import flags_of
from casl_bench.cli import leaderboard as command_module
from casl_bench.cli.main import main
from casl_bench.core.files import hash_bytes, hash_json
from casl_bench.report.submission import Expected
from casl_bench.results.record import RunRecord, SuiteRef
from casl_bench.results.rejudged import FILE, Rejudged, write_rejudged
from casl_bench.results.run_folder import read_jsonl, write_jsonl
from casl_bench.runs.suites import SUITES
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

Records = list[RunRecord]


def write(path: Path, records: Records) -> Path:
    write_jsonl(path, records)
    return path


@pytest.fixture
def published(tmp_path: Path, whole: Records) -> Path:
    """A folder of leaderboards with one file of records and its pages."""
    out = tmp_path / "leaderboards"
    write(out / "records" / "ours.jsonl", whole)
    assert leaderboard(out) == 0
    return out


def leaderboard(out: Path, *more: str) -> int:
    return main(["leaderboard", "--records", str(out / "records"), "--out", str(out), *more])


@pytest.fixture
def knows_suite(monkeypatch: pytest.MonkeyPatch, expected: Expected) -> None:
    """Spares the import of torch."""
    monkeypatch.setattr(command_module, "expected_of", lambda records: expected)


def submit(out: Path, path: Path, *more: str) -> int:
    return main(["submit", str(path), "--records", str(out / "records"), *more])


def test_pages_are_made_and_checked(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {p.relative_to(published).as_posix() for p in published.rglob("*.md")}
    assert made == {
        "README.md", "datasets/rendered_churches.md", "methods/asyrp.md", "methods/casl.md",
    }  # fmt: skip
    assert leaderboard(published, "--check") == 0
    assert "4 pages are those of the records" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["README.md", "methods/casl.md"])
def test_a_page_edited_by_hand_fails(
    published: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = published / name
    edited = page.read_text(encoding="utf-8").replace("0.50", "0.99")
    page.write_text(edited, encoding="utf-8")
    assert leaderboard(published, "--check") == 5
    assert f"{name} is stale or was edited by hand" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == edited
    assert leaderboard(published) == 0
    assert leaderboard(published, "--check") == 0


def test_other_line_ends_are_another_page(published: Path) -> None:
    page = published / "README.md"
    page.write_bytes(page.read_bytes().replace(b"\n", b"\r\n"))
    assert leaderboard(published, "--check") == 5


def test_new_records_make_pages_stale(
    published: Path, made_up_run: Any, scores: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write(published / "records" / "more.jsonl", made_up_run(scores, seed=1).records)
    assert leaderboard(published, "--check") == 5
    assert "README.md is stale" in capsys.readouterr().err


def test_pages_of_records_that_are_gone(
    published: Path, made_up_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = made_up_run({"h_pca": {"brick": 2.0, "dome": 2.0, "snow": 2.0}}).records
    write(published / "records" / "ours.jsonl", records)
    assert leaderboard(published, "--check") == 5
    assert "methods/casl.md is of no records" in capsys.readouterr().err
    (published / "methods" / "notes.md").write_text("mine\n")
    assert leaderboard(published) == 0
    left = {p.name for p in (published / "methods").iterdir()}
    assert left == {"h_pca.md", "notes.md"}  # what nobody made is not removed
    assert leaderboard(published, "--check") == 5


def test_records_that_were_changed_make_no_page(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published / "records" / "ours.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"value": 9.0', '"value": 99.0', 1))
    assert leaderboard(published) == 5
    assert "its id does not match its content" in capsys.readouterr().err


def test_a_broken_control_makes_no_page(
    tmp_path: Path, whole: Records, replaced: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(r for r in whole if r.method == "oracle").measurements
    worse = {**good, "flip_rate": good["flip_rate"].model_copy(update={"value": 0.3})}
    write(
        tmp_path / "records" / "ours.jsonl",
        replaced(whole, lambda r: r.method == "oracle", measurements=worse),
    )
    assert leaderboard(tmp_path) == 5
    assert "the oracle flips only 0.30" in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists()


OLD = Path(__file__).parents[4] / "leaderboards" / "archive"


def test_the_old_instrument_has_a_page_of_its_own(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in published.rglob("*.md") if p.name != "README.md"}
    (file,) = OLD.glob("*.jsonl.gz")
    misplaced = published / "records" / file.name
    misplaced.write_bytes(file.read_bytes())
    assert leaderboard(published) == 2
    error = capsys.readouterr().err
    assert "records of the old instrument" in error and f"move the file to {published}" in error
    (published / "archive").mkdir()
    misplaced.rename(published / "archive" / file.name)
    assert leaderboard(published) == 0 and leaderboard(published, "--check") == 0
    assert {p: p.read_bytes() for p in before} == before
    page = (published / "archive" / "README.md").read_text(encoding="utf-8")
    assert page == (OLD / "README.md").read_text(encoding="utf-8")
    assert "**Of the old instrument.**" in page and "concept_slider" in page
    index = (published / "README.md").read_text(encoding="utf-8")
    assert "[archive](archive/README.md)" in index and "concept_slider" not in index
    ours = published / "records" / "ours.jsonl"
    ours.rename(published / "archive" / "ours.jsonl")
    assert leaderboard(published) == 2
    assert "records of the new instrument" in capsys.readouterr().err


def test_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leaderboard(tmp_path) == 2
    assert "no record files" in capsys.readouterr().err


def test_a_report_names_the_control_that_lacks_a_number(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(r: RunRecord) -> RunRecord:
        left = {n: m for n, m in r.measurements.items() if n != "epr_plus"}
        return r.model_copy(update={"measurements": left}) if r.method == "inverted" else r

    given = write(tmp_path / "numbers.jsonl", [*map(without, whole)])
    assert main(["report", str(given), "--out", str(tmp_path / "report")]) == 5
    assert "a record of control 'inverted' lacks 'epr_plus'" in capsys.readouterr().err
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "There is no ranking" in page and "lacks &#39;epr_plus&#39;" in page


def test_a_name_that_is_taken_by_the_index(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "records" / "README.jsonl", whole)
    assert leaderboard(tmp_path) == 2
    assert "reserved" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["latex", "csv", "json"])
def test_other_formats_go_to_standard_output(
    published: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert leaderboard(published, "--format", form) == 0
    assert "casl" in capsys.readouterr().out
    assert leaderboard(published, "--format", form, "--check") == 2


def test_the_command_needs_no_torch() -> None:
    code = (
        "import sys, casl_bench.report.leaderboard_pages, casl_bench.report.exports;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'dask', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# submit -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("knows_suite")
def test_a_whole_file_is_added(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path / "records.jsonl", whole[::-1])
    assert submit(tmp_path, given, "--dry-run") == 0
    target = tmp_path / "records" / "rendered_churches-standard-v3-seed0.jsonl.gz"
    assert not target.exists()
    assert submit(tmp_path, given) == 0
    assert str(target) in capsys.readouterr().out
    assert {r.record_id for r in read_jsonl(target)} == {r.record_id for r in whole}
    assert leaderboard(tmp_path) == 0
    write(target.with_suffix(""), whole)  # packed or not, a name is a name
    assert submit(tmp_path, given) == 2 and leaderboard(tmp_path) == 2
    said = capsys.readouterr().err.splitlines()
    assert "of this name already" in said[-2] and "two files are called" in said[-1]


@pytest.mark.usefixtures("knows_suite")
def test_a_refusal_leaves_nothing_behind(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path / "records.jsonl", whole[1:])
    assert submit(tmp_path, given) == 5
    error = capsys.readouterr().err
    assert "missing: rendered_churches/casl/brick" in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.rglob("*")] == ["records.jsonl"]


@pytest.mark.usefixtures("knows_suite")
def test_a_changed_record_is_refused(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path / "records.jsonl", whole)
    given.write_text(given.read_text().replace('"value": 9.0', '"value": 99.0', 1))
    assert submit(tmp_path, given) == 5
    assert "its id does not match its content" in capsys.readouterr().err


@pytest.mark.usefixtures("knows_suite")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f'"git_commit": "{"c" * 40}"', f'"git_commit": "{"d" * 40}"', "provenance was changed"),
        ('"provenance_id"', '"odd"', "odd: Extra inputs"),
        (r'"provenance_id": "\w+", ', "", "have no hash of their provenance"),
    ],
)
def test_provenance_written_by_hand_is_refused(
    tmp_path: Path, whole: Records, old: str, new: str, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = write(tmp_path / "records.jsonl", whole)
    given.write_text(re.sub(old, new, given.read_text(encoding="utf-8"), count=1))
    assert submit(tmp_path, given) == 5
    assert said in capsys.readouterr().err
    assert not (tmp_path / "records").exists()


@pytest.mark.usefixtures("knows_suite")
def test_numbers_of_a_run_folder_are_those_of_its_scores(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    write_made_up_run(tmp_path / "run", MadeUpRun({"casl": MadeUpMethod()}))
    given = write(tmp_path / "run" / "numbers.jsonl", whole)
    assert submit(tmp_path, given) == 5
    assert "suite 'made_up'" in capsys.readouterr().err


@pytest.mark.usefixtures("knows_suite")
def test_a_broken_control_is_refused(
    tmp_path: Path, whole: Records, replaced: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(r for r in whole if r.method == "identity").measurements
    moved = {
        **good,
        "signed_target_change": good["signed_target_change"].model_copy(update={"value": 0.2}),
    }
    given = write(
        tmp_path / "records.jsonl",
        replaced(whole, lambda r: r.method == "identity", measurements=moved),
    )
    assert submit(tmp_path, given) == 5
    assert "'identity' moved brick by 0.2" in capsys.readouterr().err
    assert not (tmp_path / "records").exists()


@pytest.mark.usefixtures("knows_suite")
def test_the_same_records_are_not_added_twice(
    tmp_path: Path, whole: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path / "records.jsonl", whole)
    assert submit(tmp_path, given) == 0
    assert submit(tmp_path, given) == 2
    assert "there are records of this name already" in capsys.readouterr().err
    assert submit(tmp_path, given, "--name", "again") == 5
    assert "published already" in capsys.readouterr().err


@pytest.mark.usefixtures("knows_suite")
@pytest.mark.parametrize("name", ["../up", "README", ".hidden", "a b", ""])
def test_a_name_that_is_no_name(
    tmp_path: Path, whole: Records, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path / "records.jsonl", whole)
    assert submit(tmp_path, given, "--name", name) == 2
    assert "is no name for a file of records" in capsys.readouterr().err


@pytest.mark.usefixtures("knows_suite")
def test_a_run_folder_shows_its_suite(
    tmp_path: Path,
    whole: Records,
    monkeypatch: pytest.MonkeyPatch,
    expected: Expected,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, suite = tmp_path / "run", {"name": "standard", "num_steps": 20}
    monkeypatch.setattr(
        command_module,
        "expected_of",
        lambda records: dataclasses.replace(expected, suite_hash=hash_json(suite)),
    )
    run.mkdir()
    monkeypatch.setattr("casl_bench.report.submission.read_numbers", lambda source: [*whole])
    assert submit(tmp_path, run) == 5
    assert "manifest.json cannot be read" in capsys.readouterr().err
    (run / "manifest.json").write_text(json.dumps({"key": {"suite": {**suite, "num_steps": 5}}}))
    assert submit(tmp_path, run) == 5
    assert "has other settings than today's" in capsys.readouterr().err
    (run / "manifest.json").write_text(json.dumps({"key": {"suite": suite}}))
    write_rejudged(run / FILE, Rejudged(seed=1, steps=1, images=1, datasets={}))
    assert submit(tmp_path, run) == 0
    name = "rendered_churches-standard-v3-seed0"
    added = {p.name for p in (tmp_path / "records").iterdir()}
    assert added == {f"{name}.scores.npz", f"{name}.rejudged.json"}


def with_scores(record: RunRecord, content: bytes) -> RunRecord:
    if record.scores is None:
        return record
    scores = record.scores.model_copy(update={"sha256": hash_bytes(content)})
    return record.model_copy(update={"scores": scores})


def test_a_quick_run_is_refused_at_once(
    tmp_path: Path, whole: Records, replaced: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = whole[0].suite.model_copy(update={"quick": True})
    given = write(tmp_path / "records.jsonl", replaced(whole, lambda r: True, suite=quick))
    assert submit(tmp_path, given) == 5
    assert "for trying out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_package_knows_what_a_run_should_hold(
    tmp_path: Path, made_up_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run as the real suite, data set and methods want it: accepted, and not with less."""
    from casl_bench.cli.leaderboard import expected_of

    suite = SuiteRef(name="default", version=SUITES["default"].version)
    (some,) = made_up_run({"h_linear": {"brick": 2.0}}, suite=suite).records[:1]
    wanted = expected_of([some])
    scores = {"h_linear": dict.fromkeys(wanted.concepts["rendered_churches"], 2.0)}
    names = {*wanted.alone, *wanted.beside["h_linear"], "h_linear"}
    (beside,) = wanted.beside["h_linear"]
    made = made_up_run(
        scores,
        draws=wanted.draws,
        controls=wanted.alone,
        beside={"h_linear": beside},
        suite=suite,
    ).records
    wanted = expected_of(made)
    assert names <= {r.method for r in made}
    known = [r.model_copy(update=dict(wanted.fields_of(r))) for r in made]
    records = [
        r.model_copy(update={"flags": flags_of(r)}) if r.kind == "edit" else r for r in known
    ]
    given = write(tmp_path / "records.jsonl", records)
    assert submit(tmp_path, given) == 0
    scorers = {**known[0].scorers, "classifier_plain": "e" * 64}
    mine = [r.model_copy(update={"scorers": scorers}) for r in records]
    assert submit(tmp_path, write(tmp_path / "mine.jsonl", mine), "--name", "mine") == 5
    assert "scorers of 'h_linear' is not what it is here" in capsys.readouterr().err
    fewer = [r for r in records if r.concept != "night"]
    assert submit(tmp_path, write(tmp_path / "fewer.jsonl", fewer), "--name", "fewer") == 5
    assert "missing: rendered_churches/h_linear/night" in capsys.readouterr().err


HEADING = "rendered_churches (rendered, suite standard v3, seed 0)"
QUOTED = f"# Mine\n\n<!-- quoted: README.md / {HEADING} -->\nold\n<!-- /quoted -->\n\nand on.\n"


def test_a_quoted_table_is_that_of_its_page(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "mine.md"
    document.write_text(QUOTED, encoding="utf-8")
    assert leaderboard(published, "--check", "--quotes", str(document)) == 5
    assert "mine.md" in capsys.readouterr().err
    assert document.read_text(encoding="utf-8") == QUOTED
    assert leaderboard(published, "--quotes", str(document)) == 0
    text = document.read_text(encoding="utf-8")
    page = (published / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| rank")
    assert "\n".join(rows) in page.split(f"## {HEADING}\n")[1]
    assert text.endswith("<!-- /quoted -->\n\nand on.\n")
    assert "old" not in text
    assert leaderboard(published, "--check", "--quotes", str(document)) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("README", "READ", "unknown page 'READ.md'; did you mean 'README.md'?"),
        ("seed 0", "seed 1", f"seed 1)'; did you mean '{HEADING}'?"),
        ("<!-- /quoted -->", "", "not closed"),
    ],
)
def test_a_quote_of_nothing_is_refused(
    published: Path, tmp_path: Path, old: str, new: str, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sound, document = tmp_path / "sound.md", tmp_path / "mine.md"
    sound.write_text(QUOTED, encoding="utf-8")
    document.write_text(QUOTED.replace(old, new), encoding="utf-8")
    assert leaderboard(published, "--quotes", str(sound), "--quotes", str(document)) == 2
    assert said in capsys.readouterr().err
    assert sound.read_text(encoding="utf-8") == QUOTED
