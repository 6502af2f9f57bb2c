"""One's own method beside published scores: its row, its tests, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from casl_bench.analysis.analyse import publish
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_bytes
from casl_bench.report.leaderboard import read_sources
from casl_bench.report.leaderboard_pages import render_pages
from casl_bench.report.method_submission import (
    MethodSubmission,
    add_method,
    check_method,
    published_beside,
    submission_text,
)
from casl_bench.results.rejudged import NOT_REJUDGED
from casl_bench.results.run_folder import CellKey, RecordStore
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

COMMIT = "0" * 40
RUN = MadeUpRun({"casl": MadeUpMethod(damage=0.1), "asyrp": MadeUpMethod(damage=0.4)},
                commit=COMMIT)  # fmt: skip
MINE = replace(RUN, methods={"mine": MadeUpMethod(damage=0.2)})


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("casl_bench.report.leaderboard.check_bounds", lambda *a: None)
    monkeypatch.setattr(
        "casl_bench.report.method_submission.odd_provenance", lambda found: iter(())
    )
    write_made_up_run(tmp_path / "whole", RUN)
    path = tmp_path / "records" / "made-up.scores.npz"
    publish([tmp_path / "whole"], path)
    return path


def mine(folder: Path, run: MadeUpRun = MINE) -> Path:
    write_made_up_run(folder / "mine", run)
    return folder / "mine"


def check(folder: Path, published: Path, run: MadeUpRun = MINE) -> MethodSubmission:
    """As `check_method`; the made-up cells keep no validation scores, so a curve stands in."""
    return check_method(mine(folder, run), published)


@pytest.fixture(autouse=True)
def _with_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    from casl_bench.report import method_submission as module
    from casl_bench.results.record import CurvePoint, Measurement

    plain = module.read_cells
    point = CurvePoint(
        strength=0.5, measurements={"precise_edits": Measurement.of(0.5, 1, "share")}
    )
    monkeypatch.setattr(
        module,
        "read_cells",
        lambda run: [replace(c, curve=(point,)) if c.scores else c for c in plain(run)],
    )


def test_only_my_method_is_ranked_beside_the_published_ones(
    tmp_path: Path, published: Path
) -> None:
    run = mine(tmp_path)
    assert published_beside(run, published.parent) == published
    found = check_method(run, published)
    assert found.methods == ("mine",) and found.flags == {"mine": NOT_REJUDGED}
    (record,) = found.comparisons
    assert record.comparison is not None
    assert {s.method for s in record.comparison.standings} == {"casl", "asyrp", "mine"}
    text = submission_text(found)
    assert "not re-judged" in text and "casl" in text


def test_what_was_added_is_on_the_board(tmp_path: Path, published: Path) -> None:
    path = add_method(check(tmp_path, published))
    assert path.name == "made-up@mine.scores.npz"
    (source,) = read_sources(published.parent)
    pages = render_pages([source])
    assert "mine" in pages["README.md"] and NOT_REJUDGED in pages["README.md"]
    assert "made-up.md" not in pages and sum(map(len, pages.values())) < 150_000
    with pytest.raises(UsageError, match="already"):
        check_method(tmp_path / "mine", published)  # its only method is published now


def test_a_copy_of_published_scores_is_refused(tmp_path: Path, published: Path) -> None:
    copied = replace(RUN, methods={"mine": RUN.methods["casl"]})
    with pytest.raises(InvalidBenchmarkError, match="very scores of casl"):
        check(tmp_path, published, copied)


def test_other_images_are_no_pair(tmp_path: Path, published: Path) -> None:
    run = mine(tmp_path)
    store = RecordStore(run)
    record = store.find(CellKey("made_up", "edit", "mine", None, "hat"))
    assert record is not None and record.scores is not None
    table = store.scores(record)
    assert table is not None
    moved = replace(table, source_logits=table.source_logits + 1.0).to_npz()
    ref = record.scores.model_copy(update={"sha256": hash_bytes(moved)})
    store.write(record.model_copy(update={"scores": ref}), {ref.file: moved})
    with pytest.raises(InvalidBenchmarkError, match="sees image"):
        check_method(run, published)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"dataset_revision": "2"}, "dataset_revision"), ({"backbone": "b"}, "backbone")],
)
def test_another_instrument_is_refused(
    tmp_path: Path, published: Path, changes: dict[str, str], fault: str
) -> None:
    with pytest.raises((InvalidBenchmarkError, UsageError), match=f"{fault}|no published"):
        check(tmp_path, published, replace(MINE, changes=changes))


def test_a_missing_concept_is_refused(tmp_path: Path, published: Path) -> None:
    with pytest.raises(InvalidBenchmarkError, match="missing"):
        check(tmp_path, published, replace(MINE, concepts=("hat",)))


def test_changed_code_is_refused(tmp_path: Path, published: Path) -> None:
    with pytest.raises(InvalidBenchmarkError, match="unknown commit"):
        check(tmp_path, published, replace(MINE, commit=None))
