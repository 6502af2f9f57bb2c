"""One's own method beside published scores: its row, its tests, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casl_bench.analysis.analyse import publish
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_bytes
from casl_bench.report.leaderboard import read_sources, rejudged_file
from casl_bench.report.leaderboard_pages import render_pages
from casl_bench.report.method_submission import (
    MethodSubmission,
    add_method,
    check_method,
    published_beside,
    submission_text,
)
from casl_bench.report.submission import Expected
from casl_bench.results.record import CellRecord
from casl_bench.results.rejudged import (
    FILE,
    LOST,
    NOT_REJUDGED,
    Rejudged,
    RejudgedDataset,
    RejudgedMethod,
    read_rejudged,
    write_rejudged,
)
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable
from tests.support.scored_run import JUDGE, MadeUpMethod, MadeUpRun, write_made_up_run

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


def test_a_copy_of_a_controls_scores_is_refused(tmp_path: Path, published: Path) -> None:
    """A plug-in that finds a way to the perfect edit has the very scores of the oracle."""
    store = RecordStore(tmp_path / "whole")
    control = store.find(CellKey("made_up", "edit", "random_direction", None, "hat"))
    assert control is not None
    scores = store.scores(control)
    assert scores is not None

    def copied(own: ScoreTable) -> ScoreTable:
        return replace(own, edit_logits=scores.edit_logits, background=scores.background)

    run = tampered(tmp_path, table=copied)
    with pytest.raises(InvalidBenchmarkError, match="very scores of random_direction/hat"):
        check_method(run, published)


def test_one_method_under_two_names_is_refused(tmp_path: Path, published: Path) -> None:
    twice = replace(RUN, methods={"mine": MadeUpMethod(), "again": MadeUpMethod()})
    with pytest.raises(InvalidBenchmarkError, match="mine/hat has the very scores of again/hat"):
        check(tmp_path, published, twice)


def test_edits_that_change_nothing_are_nobodys(tmp_path: Path, published: Path) -> None:
    still = MadeUpMethod(gain=0.0, damage=0.0)
    twice = replace(RUN, methods={"mine": still, "again": still})
    assert check(tmp_path, published, twice).methods == ("again", "mine")


def tampered(
    folder: Path, concept: str = "hat", record: Changes = None, table: Changes = None
) -> Path:
    """My run, in which a program changed a cell and all hashes that belong to it."""
    run = mine(folder)
    store = RecordStore(run)
    found = store.find(CellKey("made_up", "edit", "mine", None, concept))
    assert found is not None and found.scores is not None
    scores = store.scores(found)
    assert scores is not None
    if table is not None:
        scores = table(scores)
    content = scores.to_npz()
    update: dict[str, Any] = {} if record is None else record(found)
    ref = found.scores.model_copy(update={"sha256": hash_bytes(content)})
    store.write(found.model_copy(update={**update, "scores": ref}), {ref.file: content})
    return run


Changes = Callable[[Any], Any] | None


def _first(count: int) -> Callable[[ScoreTable], ScoreTable]:
    return lambda t: t.take(t.image_ids[:count])


def _of_level(**changes: Any) -> Callable[[CellRecord], dict[str, Any]]:
    return lambda r: {"levels": tuple(x.model_copy(update=changes) for x in r.levels)}


TAMPERED: dict[str, tuple[str, Changes, Changes]] = {
    "other_sources": (
        "sees image", None, lambda t: replace(t, source_logits=t.source_logits + 1.0),
    ),
    "other_reconstructions": (
        "sees image",
        None,
        lambda t: replace(t, reconstruction_logits=t.reconstruction_logits - 1.0),
    ),
    "easy_images_alone": ("16 test images are not the 32", None, _first(16)),
    "other_order": (
        "test images are not", None, lambda t: t.take(t.image_ids[::-1]),
    ),
    "other_split": (
        "test images are not",
        None,
        lambda t: replace(t, image_ids=tuple(f"validation-{i}" for i in t.image_ids)),
    ),
    "guard_left_out": ("no scores of background", None, lambda t: replace(t, background=None)),
    "other_scorer": (
        "scorers of made_up is not", lambda r: {"scorers": {JUDGE: "0" * 64}}, None,
    ),
    "other_attribute": (
        "attribute of made_up is not", lambda r: {"attribute": "blond"}, None,
    ),
    "other_backbone": ("backbone of made_up is not", lambda r: {"backbone": "b" * 64}, None),
    "easier_goal": ("level effect_50 is at 0.1", _of_level(goal=0.1), None),
    "second_fit_alone": ("not the same fits", lambda r: {"fit_seed": 1}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
@pytest.mark.parametrize("concept", ["hat", "beard"])  # the first cell, and another one
def test_tampering_is_refused_in_one_line(
    tmp_path: Path, published: Path, case: str, concept: str
) -> None:
    said, record, table = TAMPERED[case]
    with pytest.raises(InvalidBenchmarkError, match=said) as error:
        check_method(tampered(tmp_path, concept, record, table), published)
    assert "\n" not in str(error.value)
    assert not list(published.parent.glob("*@*"))


def test_scores_changed_by_hand_are_refused(tmp_path: Path, published: Path) -> None:
    run = mine(tmp_path)
    file = next((run / "cells" / "made_up" / "mine" / "hat").glob("scores.npz"))
    table = ScoreTable.from_npz(file.read_bytes())
    file.write_bytes(replace(table, edit_logits=table.edit_logits + 1.0).to_npz())
    with pytest.raises(InvalidBenchmarkError, match=r"changed|hash|damaged"):
        check_method(run, published)


def test_an_image_twice_is_refused(tmp_path: Path, published: Path) -> None:
    run = mine(tmp_path)
    store = RecordStore(run)
    record = store.find(CellKey("made_up", "edit", "mine", None, "hat"))
    assert record is not None and record.scores is not None
    table = store.scores(record)
    assert table is not None
    arrays = dict(np.load(io.BytesIO(table.to_npz())))
    arrays["image_ids"][1] = arrays["image_ids"][0]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    ref = record.scores.model_copy(update={"sha256": hash_bytes(file.getvalue())})
    store.write(record.model_copy(update={"scores": ref}), {ref.file: file.getvalue()})
    with pytest.raises(InvalidBenchmarkError, match="not distinct"):
        check_method(run, published)


def test_a_published_file_changed_by_hand_is_refused(tmp_path: Path, published: Path) -> None:
    added = add_method(check(tmp_path, published))
    arrays = dict(np.load(added))
    name = next(n for n in arrays if n.endswith("/edits"))
    arrays[name] = arrays[name] + 1000
    np.savez_compressed(added, **arrays)
    with pytest.raises(InvalidBenchmarkError, match="are not those of its record"):
        check_method(added, published)


def test_the_name_of_a_control_is_refused(tmp_path: Path, published: Path) -> None:
    run = replace(MINE, methods={"random_direction": MadeUpMethod(damage=0.2)})
    with pytest.raises(InvalidBenchmarkError, match="name of a control"):
        check(tmp_path, published, run)


@pytest.mark.parametrize("name", ["package/method", "../../up", "a@b"])
def test_any_name_is_a_file_beside_the_published_one(
    tmp_path: Path, published: Path, name: str
) -> None:
    run = replace(MINE, methods={name: MadeUpMethod(damage=0.2)})
    path = add_method(check(tmp_path, published, run))
    assert path.parent == published.parent and path.is_file()
    (source,) = read_sources(published.parent)
    assert name in {r.method for r in source.records}


def test_strengths_chosen_on_test_images_are_refused(
    tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from casl_bench.report import method_submission as module

    plain = module.read_cells
    monkeypatch.setattr(
        module, "read_cells", lambda run: [replace(c, validation=c.scores) for c in plain(run)]
    )
    with pytest.raises(InvalidBenchmarkError, match="chosen on test images"):
        check(tmp_path, published)


def test_a_curve_without_the_headline_chooses_no_strength(
    tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the record's own strength would count, which may be the best on test images."""
    from casl_bench.report import method_submission as module
    from casl_bench.results.record import CurvePoint

    plain, empty = module.read_cells, (CurvePoint(strength=0.5, measurements={}),)
    monkeypatch.setattr(
        module, "read_cells", lambda run: [replace(c, curve=empty) for c in plain(run)]
    )
    with pytest.raises(InvalidBenchmarkError, match="chosen on no validation image"):
        check(tmp_path, published)


def test_supervision_is_that_of_the_card(tmp_path: Path, published: Path) -> None:
    expected = Expected(
        1, "", 32, 2, {}, (), {}, {},
        fields_of=lambda r: {"supervision": "labels"} if r.method == "mine" else {},
    )  # fmt: skip
    with pytest.raises(InvalidBenchmarkError, match="supervision of 'mine' is not what it is here"):
        check_method(mine(tmp_path), published, lambda records: expected)
    unknown = replace(expected, suite_version=None, fields_of=lambda r: {})
    with pytest.raises(InvalidBenchmarkError, match="there is no suite 'made_up'"):
        check_method(tmp_path / "mine", published, lambda records: unknown)


def rejudged(**methods: tuple[float, float, int]) -> Rejudged:
    own = {n: RejudgedMethod(shipped=s, fresh=f, concepts=c) for n, (s, f, c) in methods.items()}
    datasets = {"made_up": RejudgedDataset(scorers={}, methods=own)}
    return Rejudged(seed=1, steps=1, images=1, datasets=datasets)


def test_what_is_lost_by_rejudging_is_not_ranked(tmp_path: Path, published: Path) -> None:
    file = rejudged_file(published)
    write_rejudged(file, rejudged(casl=(0.6, 0.2, 2), asyrp=(0.3, 0.29, 2)))
    casl, asyrp = ranks_and_fresh(published)
    assert casl == ("| —", f"0.200, {LOST}")
    assert asyrp == ("| 1", "0.290")


def ranks_and_fresh(published: Path) -> list[tuple[str, str]]:
    """Of casl and asyrp, as the first page has them."""
    page = render_pages(read_sources(published.parent))["README.md"]
    rows = {r.split(" | ")[1]: r.split(" | ") for r in page.splitlines() if r.startswith("| ")}
    fresh = rows["method"].index("fresh scorers ↑")
    found = (rows[f"[{m}](methods/{m}.md)"] for m in ("casl", "asyrp"))
    return [(row[0], row[fresh]) for row in found]


def test_what_was_not_re_judged_has_no_rank_beside_what_was(published: Path) -> None:
    both = ranks_and_fresh(published)
    assert all(fresh == NOT_REJUDGED and rank != "| —" for rank, fresh in both)
    write_rejudged(rejudged_file(published), rejudged(asyrp=(0.3, 0.29, 2)))
    casl, asyrp = ranks_and_fresh(published)
    assert casl == ("| —", NOT_REJUDGED) and asyrp == ("| 1", "0.290")


def test_a_submission_re_judges_nobody_else(tmp_path: Path, published: Path) -> None:
    run = mine(tmp_path)
    value = check_method(run, published)
    (record,) = value.comparisons
    assert record.comparison is not None
    own = next(s.headline for s in record.comparison.standings if s.method == "mine")
    assert own is not None and own.value is not None
    found = rejudged(mine=(own.value, own.value, 2), casl=(0.9, 0.0, 2))
    write_rejudged(run / FILE, found)
    submission = check_method(run, published)
    assert submission.flags == {} and submission.rejudged == found.of({"mine"})
    added = add_method(submission)
    assert read_rejudged(rejudged_file(added)) == found.of({"mine"})
    write_rejudged(rejudged_file(added), found)
    with pytest.raises(InvalidBenchmarkError, match="methods of others"):
        check_method(added, published)


@pytest.mark.parametrize(
    ("shipped", "concepts"), [(0.9, 2), (0.0, 1)], ids=["better", "fewer_concepts"]
)
def test_rejudging_of_other_scores_is_refused(
    tmp_path: Path, published: Path, shipped: float, concepts: int
) -> None:
    run = mine(tmp_path)
    write_rejudged(run / FILE, rejudged(mine=(shipped, shipped, concepts)))
    with pytest.raises(InvalidBenchmarkError, match="says that 'mine' has"):
        check_method(run, published)


def test_a_stale_re_judging_of_a_whole_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one from before the run's methods were mended and run again."""
    from casl_bench.report import submission as module

    for check_of in ("early_faults", "faults_of", "_manifest_faults", "check_bounds"):
        monkeypatch.setattr(module, check_of, lambda *a: [])
    run, records = tmp_path / "run", tmp_path / "records"
    write_made_up_run(run, RUN)
    write_rejudged(run / FILE, rejudged(casl=(0.99, 0.99, 2)))
    expected = Expected(1, "", 32, 2, {}, (), {}, {})
    with pytest.raises(InvalidBenchmarkError, match="says that 'casl' has"):
        module.submit(run, records, lambda r: expected, name="whole")
    assert not records.exists()
    (run / FILE).unlink()
    assert module.submit(run, records, lambda r: expected, name="whole").is_file()


def test_a_method_is_re_judged_on_all_its_data_sets_or_on_none(
    tmp_path: Path, published: Path
) -> None:
    write_made_up_run(tmp_path / "whole", replace(RUN, dataset="other"))
    publish([tmp_path / "whole"], published)
    run = mine(tmp_path)
    write_made_up_run(run, replace(MINE, dataset="other"))
    (record, _) = check_method(run, published).comparisons
    assert record.comparison is not None and record.dataset == "made_up"
    own = next(s.headline for s in record.comparison.standings if s.method == "mine")
    assert own is not None and own.value is not None
    write_rejudged(run / FILE, rejudged(mine=(own.value, own.value, 2)))
    with pytest.raises(InvalidBenchmarkError, match="re-judges 'mine', but not on other"):
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


def test_a_page_of_one_data_set_shows_what_is_left_there(tmp_path: Path, published: Path) -> None:
    write_made_up_run(tmp_path / "whole", replace(RUN, dataset="other"))
    publish([tmp_path / "whole"], published)
    own = {n: rejudged(casl=(0.6, f, 2)).datasets["made_up"] for n, f in
           (("made_up", 0.2), ("other", 0.59))}  # fmt: skip
    write_rejudged(rejudged_file(published), rejudged().model_copy(update={"datasets": own}))
    pages = render_pages(read_sources(published.parent))
    lost, kept = pages["datasets/made_up.md"], pages["datasets/other.md"]
    assert f"0.200, {LOST}" in lost and "0.590" not in lost
    assert "0.590" in kept and LOST not in kept
