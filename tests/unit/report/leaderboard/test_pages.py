"""Pages are functions of records: ranked as compared, and a dash where there is no number."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from casl_bench.report.leaderboard import Source, boards_of, code, entries_of, page_of
from casl_bench.report.leaderboard_pages import render_pages
from casl_bench.report.tables import render_tables
from casl_bench.results.record import Measurement, RunRecord, SuiteRef

Records = list[RunRecord]
DATASET = "datasets/rendered_churches.md"


def source(records: Records, name: str = "ours") -> Source:
    return Source(name, f"{name}.jsonl.gz", "f" * 64, tuple(records))


def pages(records: Records) -> dict[str, str]:
    return render_pages([source(records)])


def rows(page: str) -> list[dict[str, str]]:
    """The first table of a page."""
    lines = page[page.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def row(page: str, method: str) -> dict[str, str]:
    return next(r for r in rows(page) if method in r["method"])


def test_ranks_are_those_of_the_comparison(whole: Records) -> None:
    page = pages(whole)[DATASET]
    best, second = rows(page)[:2]
    assert best["method"] == "[casl](../methods/casl.md)"
    assert (best["rank"], best["letters"], best["reached"]) == ("1", "a", "3/3")
    # (10 · 8 · 9)^(1/3) − 1, and what is not reached counts as 0: (4 · 3 · 1)^(1/3) − 1.
    assert best["EPR+ ↑"] == "7.96 [6.96, 8.96]"
    assert (second["rank"], second["letters"], second["reached"]) == ("2", "b", "2/3")
    assert second["EPR+ ↑"] == "1.29 [0.29, 2.29]"
    assert second["flags"] == "N 1"
    assert "**N** not reached" in page


def test_methods_that_do_not_differ_significantly_share_ranks(
    made_up_run: Any, scores: Any
) -> None:
    page = pages(made_up_run(scores, p=0.4).records)[DATASET]
    assert [r["rank"] for r in rows(page)[:2]] == ["1–2", "1–2"]
    assert [r["letters"] for r in rows(page)[:2]] == ["a", "a"]


def test_controls_stand_at_the_foot_without_a_rank(whole: Records) -> None:
    found = rows(pages(whole)[DATASET])
    assert all(r["method"].startswith("*") and r["rank"] == "—" for r in found[2:])
    oracle = row(pages(whole)[DATASET], "*oracle*")
    assert oracle["EPR+ ↑"] == "50.00"
    drawn = row(pages(whole)[DATASET], "*random_direction*")
    assert (drawn["EPR+ ↑"], drawn["cells"]) == ("—", "6/6")


def test_no_mean_over_fewer_concepts(whole: Records) -> None:
    fewer = [r for r in whole if (r.method, r.concept) != ("asyrp", "dome")]
    page = pages(fewer)[DATASET]
    found = row(page, "asyrp")
    assert found["cells"] == "2/3"
    assert (found["rank"], found["letters"]) == ("—", "—")
    for column in ("EPR+ ↑", "flip rate ↑", "÷ random ↑", "parameters"):
        assert found[column].startswith("— ["), column
    assert "some cells are missing: dome" in page and "no number for dome" in page
    assert row(page, "casl")["flip rate ↑"] == "0.50"


@pytest.mark.parametrize(("gone", "left"), [("casl", "asyrp"), ("asyrp", "casl")])
def test_a_method_is_ranked_only_with_all_its_cells(whole: Records, gone: str, left: str) -> None:
    """Its comparison was stored, and says nothing once a cell of it was taken away."""
    fewer = [r for r in whole if (r.method, r.concept) != (gone, "dome")]
    standings = render_tables(fewer).split("### At equal effect")[1].split("### ")[0]
    assert f"Not compared, because some of their cells are missing: {gone}." in standings
    assert [(r["method"], r["rank"]) for r in rows(standings)] == [(left, "1")]
    assert "every two methods" not in standings and "Sensitivity" not in standings
    neither = [r for r in whole if r.control or r.concept != "dome" or r.kind != "edit"]
    assert "### At equal effect" not in render_tables(neither)


def test_a_number_that_is_undefined_says_why(
    whole: Records, replaced: Callable[..., Records]
) -> None:
    cell = next(r for r in whole if r.method == "casl")
    undefined = {**cell.measurements, "flip_rate": Measurement.undefined("none left: 0 of 32")}
    page = pages(replaced(whole, lambda r: r is cell, measurements=undefined))[DATASET]
    assert row(page, "casl")["flip rate ↑"] == "— [1]"
    assert "[1] no number for brick: none left" in page


def test_further_fits_are_cells_too(made_up_run: Any, scores: Any) -> None:
    run = made_up_run(scores)
    again = run.edit("rendered_churches", "casl", "dome", fit_seed=1)
    found = row(pages([*run.records, again])[DATASET], "casl")
    assert (found["cells"], found["rank"]) == ("4/6", "—")


def test_records_that_differ_are_not_ranked(
    whole: Records, replaced: Callable[..., Records]
) -> None:
    other = replaced(whole, lambda r: r.method == "casl" and not r.control, backbone="e" * 64)
    page = pages(other)[DATASET]
    assert "**Not comparable: records differ in backbone" in page
    assert {r["rank"] for r in rows(page)} == {"—"}
    assert "records differ in backbones: not comparable" in page


def test_records_without_a_comparison_are_shown_unranked(whole: Records) -> None:
    page = pages([r for r in whole if r.kind != "comparison"])[DATASET]
    assert [r["rank"] for r in rows(page)[:2]] == ["—", "—"]
    assert "these records hold no comparison at equal effect" in page
    assert row(page, "casl")["flip rate ↑"] == "0.50"


def test_code_that_is_not_clean_is_flagged(
    whole: Records, replaced: Callable[..., Records]
) -> None:
    provenance = whole[0].provenance.model_copy(update={"git_dirty": True})
    page = pages(replaced(whole, lambda r: r.method == "casl", provenance=provenance))[DATASET]
    assert row(page, "casl")["flags"] == "D 3"


def test_supervision_cost_and_reconstruction_stand_beside(whole: Records) -> None:
    found = row(pages(whole)[DATASET], "casl")
    assert found["supervision"] == "text"
    assert found["reconstruction (dB) ↑"] == "50.0"
    assert found["through SAE (dB) ↑"] == "—"
    assert (found["parameters"], found["U-Net calls, fit"]) == ("100", "10")
    assert found["edit (s)"] == "0.600"  # 19.2 s of 32 images


def test_the_probe_and_the_sae_of_methods_that_have_them(made_up_run: Any, scores: Any) -> None:
    run = made_up_run(scores)
    accuracies = zip(run.concepts, (0.7, 0.8, 0.9), strict=True)
    probes = [
        run.record(
            "rendered_churches", "probe", method="casl", concept=c,
            measurements={"top_units.k16": Measurement.of(a, 80), "top_units.k32":
                          Measurement.of(0.1, 80), "top_units.k16.shuffled":
                          Measurement.of(0.5, 80)},
        )
        for c, a in accuracies
    ]  # fmt: skip
    sae = run.record("rendered_churches", "sae", measurements={"sae.psnr": Measurement.of(36.0, 8)})
    records = [
        r.model_copy(update={"artifacts": {"sae": "a" * 64}}) if r.method == "casl" else r
        for r in run.records
    ]
    page = pages([*records, *probes, sae])[DATASET]
    assert (row(page, "casl")["probe ↑"], row(page, "asyrp")["probe ↑"]) == ("0.80", "—")
    assert row(page, "casl")["through SAE (dB) ↑"] == "36.0"
    assert "16 best latents" in page
    fewer = pages([*records, *probes[:2], sae])[DATASET]
    assert row(fewer, "casl")["probe ↑"] == "— [1]"


def test_several_data_sets_have_a_board_over_all(made_up_run: Any, scores: Any) -> None:
    datasets = ("rendered_churches", "rendered_faces")
    made = pages(made_up_run(scores, datasets).records)
    index = made["README.md"]
    assert "## Overall: 2 data sets" in index
    assert rows(index)[0]["reached"] == "6/6"
    assert {"datasets/rendered_churches.md", "datasets/rendered_faces.md"} <= set(made)
    boards = [r["board"] for r in rows(made["methods/casl.md"])]
    assert len(boards) == 3 and boards[0].startswith("all data sets")


def test_boards_that_cannot_be_compared_are_separate(made_up_run: Any, scores: Any) -> None:
    ours = made_up_run(scores).records
    later = made_up_run(scores, suite=SuiteRef(name="standard", version=4)).records
    other_seed = made_up_run(scores, seed=1).records
    theirs = made_up_run({"mine": {"brick": 99.0, "dome": 99.0, "snow": 99.0}}).records
    made = render_pages([source([*ours, *later, *other_seed]), source(theirs, "theirs")])
    page = made[DATASET]
    assert page.count("\n## rendered_churches") == 4
    assert "4 separate boards" in page
    # Theirs is first of its own run, and changes no rank of another.
    assert [r["rank"] for r in rows(made["methods/mine.md"])] == ["1"]
    assert [r["rank"] for r in rows(made["methods/casl.md"])] == ["1", "1", "1"]


def test_the_published_epr_is_in_a_fold(whole: Records) -> None:
    page = pages(whole)[DATASET]
    fold = page.split("<summary>EPR as published (EPR raw)</summary>")[1].split("</details>")[0]
    assert [r["brick"] for r in rows(fold) if r["method"] == "casl"] == ["3.00"]


def test_a_page_links_its_records_its_tables_and_its_command(whole: Records) -> None:
    page = pages(whole)[DATASET]
    assert "[ours.jsonl.gz](../records/ours.jsonl.gz)" in page
    assert "`casl-bench table leaderboards/records/ours.jsonl.gz`" in page
    assert "`benchmark.py --methods all`" in page


def test_a_methods_page_says_whom_it_beats(whole: Records) -> None:
    made = pages(whole)
    assert "| asyrp | better " in made["methods/casl.md"]
    assert "| casl | worse " in made["methods/asyrp.md"]
    assert '"gain": 1.0' in made["methods/casl.md"]
    assert "Concepts of rendered_churches" in made["methods/casl.md"]


def test_every_link_leads_to_a_page(made_up_run: Any) -> None:
    scores = {"pkg/my method": {"brick": 1.0}, "casl": {"brick": 2.0}}
    made = pages(made_up_run(scores, ("rendered_churches", "a data set")).records)
    for name, text in made.items():
        up = "" if "/" not in name else "../"
        links = re.findall(r"\]\(([^)]+\.md)\)", text)
        assert links
        for target in links:
            assert target.startswith(up)
            target = target.removeprefix(up)
            assert target in made or target == "../docs/leaderboards.md", (name, target)


def test_the_order_of_records_changes_nothing(made_up_run: Any, scores: Any) -> None:
    records = made_up_run(scores, ("rendered_churches", "rendered_faces")).records
    shuffled = records.copy()
    random.Random(0).shuffle(shuffled)
    one, two = source(records), source(shuffled)
    other = source(made_up_run(scores, seed=1).records, "other")
    assert render_pages([one, other]) == render_pages([other, two])


def test_names_cannot_break_a_page(made_up_run: Any) -> None:
    evil = "x|<script>alert(1)</script>](http://a"
    made = pages(made_up_run({evil: {"a|b": 1.0}}).records)
    text = "\n".join(made.values())
    assert "<script>" not in text
    assert rows(made[DATASET])[0]["rank"] == "1"
    for name in (evil, "../../x", ".hidden", "UP", ""):
        assert re.fullmatch(r"methods/[a-z0-9_-][a-z0-9_-]*\.md", page_of("methods", name))


def test_two_names_never_share_a_page() -> None:
    names = ["casl", "Casl", "ca sl", "ca-sl", "ca/sl", "ca.sl", "café", "cafe"]
    assert len({page_of("methods", name) for name in names}) == len(names)


def test_code_stays_code() -> None:
    assert code("a `b` c") == "`` a `b` c ``"
    assert code("a\n\nb") == "`a b`"


@pytest.mark.parametrize("name", ["casl", "asyrp"])
def test_an_entry_is_of_its_board(whole: Records, name: str) -> None:
    (board,) = boards_of(source(whole))
    (entry,) = [e for e in entries_of(board) if e.method == name]
    assert entry.status == "ranked" and entry.standing is not None
    assert entry.standing.method == name and board.comparison is not None
    assert entry.standing in board.comparison.standings
