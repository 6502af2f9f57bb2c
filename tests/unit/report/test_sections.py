"""Drift, cost, and what several data sets have in common: functions of records like all tables."""

from __future__ import annotations

import random
from typing import Any

import pytest

from casl_bench.report.tables import render_tables
from casl_bench.results.record import Cost, ErrorInfo, Measurement, Provenance, RunRecord, SuiteRef

FACES = ("smiling", "hat", "blond")
DOGS = ("tongue", "hat")


def ok(value: float, n: int = 32) -> Measurement:
    return Measurement(status="ok", value=value, n=n)


def provenance(**changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "package_version": "0",
        "git_commit": None,
        "git_dirty": None,
        "packages": {},
        "device": "cpu",
        "platform": "Linux x86_64",
        "started_at": "2026-01-01T00:00:00+00:00",
        "threads": 2,
        "seconds": {"edit": 19.2, "fit": 0.001},
        "fit_seconds": 12.34,
        "fit_peak_memory_mb": 1500.6,
    }
    return Provenance(**(fields | changes))


def edit(concept: str = "hat", epr: float = 2.0, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "kind": "edit",
        "world": "synth",
        "dataset": "rendered_faces",
        "dataset_revision": "r1",
        "suite": SuiteRef(name="standard", version=1),
        "seed": 0,
        "method": "casl",
        "concept": concept,
        "supervision": "text",
        "strength": 0.5,
        "strength_chosen_on": "validation",
        "strengths": (0.5, 1.0, 2.0),
        "attributes": FACES,
        "scorers": {"a": "a" * 64},
        "cost": Cost(parameters=1000, unet_calls=960, edit_unet_calls=30.5),
        "measurements": {"epr_floored": ok(epr), "flip_rate": ok(0.5, n=20)},
        "provenance": provenance(),
    }
    return RunRecord(**(fields | changes))


def dogs(concept: str = "hat", epr: float = 4.0, **changes: Any) -> RunRecord:
    return edit(concept, epr, **{"dataset": "rendered_dogs", "attributes": DOGS} | changes)


def other(kind: Any, dataset: str, found: dict[str, float], **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "kind": kind,
        "world": "synth",
        "dataset": dataset,
        "dataset_revision": "r1",
        "suite": SuiteRef(name="standard", version=1),
        "seed": 0,
        "measurements": {name: ok(value) for name, value in found.items()},
        "provenance": provenance(),
    }
    return RunRecord(**(fields | changes))


def failed(record: RunRecord) -> RunRecord:
    error = ErrorInfo(type="InputError", message="no")
    return record.model_copy(
        update={"status": "failed", "error": error, "measurements": {}, "drift": {}}
    )


def part(text: str, section: str) -> str:
    """What stands under a heading, up to the next one."""
    return text.split(f"### {section}\n", 1)[1].split("\n### ")[0].split("\n## ")[0]


def cells(text: str, section: str, start: str, fold: str | None = None) -> dict[str, str]:
    """Heading → cell of the row that begins so, in a section's table or in one of its folds."""
    body = part(text, section)
    if fold is not None:
        body = body.split(f"<summary>{fold}</summary>", 1)[1].split("</details>")[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return dict(zip(rows[0], next(r for r in rows if r[0] == start), strict=True))


# Shift ----------------------------------------------------------------------------------------

SHIFT = "Off-target shift"


def test_shift_is_signed_and_its_target_marked() -> None:
    text = render_tables([edit("hat", drift={"smiling": -0.25, "hat": 1.5, "blond": None})])
    assert cells(text, SHIFT, "hat", "casl, shift by concept") == {
        "concept": "hat", "strength": "0.5", "smiling": "−0.25", "hat": "**1.50**",
        "blond": "— [1]",
    }  # fmt: skip
    assert "[1] undefined" in part(text, SHIFT)


def test_off_target_shift_is_absolute_and_leaves_out_the_target() -> None:
    text = render_tables(
        [
            edit("hat", drift={"smiling": -0.2, "hat": 9.0, "blond": 0.1}),
            edit("blond", drift={"smiling": 0.4, "hat": -0.6, "blond": 9.0}),
        ]
    )
    found = cells(text, SHIFT, "casl")
    assert found["smiling"] == "0.30 [−0.97, 1.57]"  # of |−0.2| and |0.4|: signed, 0.1
    assert (found["hat"], found["blond"]) == ("0.60", "0.10")
    assert found["all"] == "0.33 [−1.90, 2.55]"  # of (0.2 + 0.1) / 2 and (0.4 + 0.6) / 2
    assert list(found) == ["method", *FACES, "all"]


def test_no_mean_shift_over_fewer_concepts() -> None:
    drift = {"smiling": 0.2, "hat": 0.2, "blond": 0.2}
    text = render_tables(
        [
            *(edit(c, drift=drift) for c in ("hat", "blond")),
            edit("hat", method="asyrp", drift=drift),
            failed(edit("blond", method="asyrp")),
        ]
    )
    found = cells(text, SHIFT, "asyrp")
    assert found["smiling"] == found["hat"] == found["all"] == "— [1]"
    assert found["blond"] == "0.20"  # the concept that failed aims at it
    assert "[1] no number for blond" in part(text, SHIFT)
    assert cells(text, SHIFT, "casl")["smiling"] == "0.20"
    in_fold = cells(text, SHIFT, "blond", "asyrp, shift by concept")
    assert in_fold["smiling"] == in_fold["blond"] == "— [1]"


def test_shift_stands_with_half_of_its_interval() -> None:
    record = edit("hat", drift={"smiling": -0.25, "hat": 1.5}, drift_margin={"smiling": 0.125})
    found = cells(render_tables([record]), SHIFT, "hat", "casl, shift by concept")
    assert (found["smiling"], found["hat"]) == ("−0.25 ± 0.12", "**1.50**")


def test_undefined_shift_is_no_zero() -> None:
    text = render_tables([edit("hat", drift={"smiling": None, "hat": 1.0, "blond": 0.5})])
    found = cells(text, SHIFT, "casl")
    assert found["smiling"] == found["all"] == "— [1]"
    assert found["blond"] == "0.50"
    assert found["hat"] == "— [2]"
    assert "[2] no concept that aims at another attribute" in part(text, SHIFT)


def test_a_concept_without_an_attribute_of_its_name_enters_no_mean() -> None:
    drift = {"smiling": 0.5, "hat": 0.1, "blond": 0.1}
    text = render_tables([edit("grin", drift=drift), edit("hat", drift=drift)])
    assert "No attribute is named like grin" in part(text, SHIFT)
    assert cells(text, SHIFT, "casl")["blond"] == "— [1]"
    assert "**" not in "".join(cells(text, SHIFT, "grin", "casl, shift by concept").values())


def test_controls_show_their_shift_too() -> None:
    drift = dict.fromkeys(FACES, 0.1)
    control = edit(method="random_rotation", control=True, beside="casl", drift=drift)
    text = render_tables([edit(drift=drift), control])
    assert cells(text, SHIFT, "*random_rotation matched to casl*")["blond"] == "0.10"
    assert "<summary>random_rotation matched to casl, shift by concept</summary>" in text


def test_records_without_shift_have_no_such_section() -> None:
    assert "Off-target" not in render_tables([edit()])


# Cost -----------------------------------------------------------------------------------------


def test_cost_is_that_of_the_fit_not_of_the_cell() -> None:
    text = render_tables([edit()])
    assert cells(text, "Cost", "casl") == {
        "method": "casl",
        "supervision": "text",
        "parameters": "1,000",
        "U-Net calls, fit": "960",
        "fit (s)": "12.3",
        "peak memory (MB)": "1,501",
        "U-Net calls, edit": "30.5",
        "edit (s)": "0.200",  # 19.2 s over 32 images at 3 strengths
    }
    assert "Times and memory: cpu, Linux x86\\_64, threads: 2." in text.replace(
        "x86_64", "x86\\_64"
    )


def test_times_are_means_memory_is_the_largest() -> None:
    more = provenance(fit_seconds=14.34, fit_peak_memory_mb=1400.0)
    found = cells(render_tables([edit("hat"), edit("blond", provenance=more)]), "Cost", "casl")
    assert (found["fit (s)"], found["peak memory (MB)"]) == ("13.3 [0.6, 26.0]", "1,501")


def test_what_nobody_measured_is_a_dash() -> None:
    old = provenance(
        fit_seconds=None, fit_peak_memory_mb=None, threads=None, seconds={"fit": 0.001}
    )
    text = render_tables([edit(provenance=old), edit("blond", provenance=old)])
    found = cells(text, "Cost", "casl")
    assert found["fit (s)"] == found["peak memory (MB)"] == found["edit (s)"] == "— [1]"
    assert "[1] not measured" in part(text, "Cost")
    assert "threads not recorded" in part(text, "Cost")


def test_no_mean_time_over_fewer_fits() -> None:
    old = provenance(fit_seconds=None)
    text = render_tables([edit("hat"), edit("blond", provenance=old), failed(edit("smiling"))])
    found = cells(text, "Cost", "casl")
    assert found["fit (s)"] == "— [2]" and found["U-Net calls, fit"] == "— [1]"
    assert "[1] no number for smiling" in part(text, "Cost")
    assert "[2] no number for blond, smiling" in part(text, "Cost")


def test_a_control_beside_a_method_has_no_fit_of_its_own() -> None:
    own = provenance(fit_seconds=None, fit_peak_memory_mb=None)
    control = edit(method="random_rotation", control=True, beside="casl", provenance=own)
    found = cells(render_tables([control]), "Cost", "*random_rotation matched to casl*")
    assert (found["fit (s)"], found["peak memory (MB)"], found["edit (s)"]) == ("—", "—", "0.200")


def test_times_of_different_machines_are_told() -> None:
    text = render_tables([edit(), edit(method="asyrp", provenance=provenance(device="cuda:0 (A)"))])
    assert "**Times and memory are of different machines" in part(text, "Cost")
    assert "cuda:0 (A)" in part(text, "Cost")


def test_where_nothing_is_done_there_is_no_cost() -> None:
    assert "### Cost" not in render_tables([failed(edit())])


# Overall --------------------------------------------------------------------------------------


def test_overall_is_the_mean_over_all_concepts_of_all_data_sets() -> None:
    text = render_tables([edit("hat", 1.0), edit("smiling", 2.0), dogs("hat", 6.0)])
    assert text.startswith("## Overall: 2 data sets (rendered, suite standard v1, seed 0)\n")
    assert "rendered_dogs (1 concept), rendered_faces (2 concepts)" in text
    assert "Means over 3 concepts of 2 data sets" in part(text, "Edits, overall")
    found = cells(text, "Edits, overall", "casl")
    assert (
        found["EPR (noise-floored) ↑"].split()[0] == "3.00"
    )  # not 3.75, the mean of the data sets' means
    assert found["EPR (noise-floored), rendered_dogs ↑"] == "6.00"
    assert found["EPR (noise-floored), rendered_faces ↑"].split()[0] == "1.50"
    assert (found["supervision"], found["cells"]) == ("text", "3/3")
    assert cells(text, "Edits", "casl")["cells"] == "1/1"  # the data set's own table


def test_no_overall_mean_where_a_data_set_lacks() -> None:
    text = render_tables([edit(), dogs(), edit(method="asyrp", epr=3.0)])
    found = cells(text, "Edits, overall", "asyrp")
    assert (
        found["EPR (noise-floored) ↑"]
        == found["EPR (noise-floored), rendered_dogs ↑"]
        == found["U-Net calls, fit"]
        == "— [1]"
    )
    assert found["EPR (noise-floored), rendered_faces ↑"] == "3.00"
    assert found["cells"] == "1/2"
    assert "[1] no number for all of rendered_dogs" in part(text, "Edits, overall")
    assert cells(text, "Edits, overall", "casl")["EPR (noise-floored) ↑"].split()[0] == "3.00"


def test_no_overall_mean_where_a_cell_failed() -> None:
    text = render_tables([edit("hat"), failed(edit("smiling")), dogs("hat"), dogs("tongue")])
    found = cells(text, "Edits, overall", "casl")
    assert (
        found["EPR (noise-floored) ↑"] == found["EPR (noise-floored), rendered_faces ↑"] == "— [1]"
    )
    assert "no number for rendered_faces/smiling" in part(text, "Edits, overall")
    assert found["EPR (noise-floored), rendered_dogs ↑"] == "4.00"


def test_one_data_set_has_no_overall_part() -> None:
    assert "verall" not in render_tables([edit(), edit("smiling")])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"world": "real"},
        {"suite": SuiteRef(name="full", version=1)},
        {"suite": SuiteRef(name="standard", version=2)},
        {"suite": SuiteRef(name="standard", version=1, quick=True)},
    ],
    ids=lambda c: next(iter(c)),
)
def test_seeds_domains_and_suites_never_mix(change: dict[str, Any]) -> None:
    assert "verall" not in render_tables([edit(), dogs(**change)])


def test_two_seeds_of_two_data_sets_are_two_parts() -> None:
    text = render_tables([edit(epr=1.0), dogs(epr=2.0), edit(epr=3.0, seed=1), dogs(seed=1)])
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert [t.split()[1].strip(":") for t in titles] == 2 * [
        "Overall", "rendered_dogs", "rendered_faces",
    ]  # fmt: skip
    assert ["seed 0" in t for t in titles] == [True] * 3 + [False] * 3
    assert cells(text, "Edits, overall", "casl")["EPR (noise-floored) ↑"].split()[0] == "1.50"


def test_two_revisions_of_a_data_set_are_not_averaged() -> None:
    text = render_tables([edit(), edit(dataset_revision="r2"), dogs()])
    assert "No means: several revisions of rendered_faces." in text
    assert "Edits, overall" not in text


def test_records_that_do_not_compare_are_told_overall() -> None:
    records = [edit(), edit(method="asyrp", scorers={"a": "c" * 64}), dogs()]
    text = render_tables(records).split("\n## rendered_dogs")[0]
    assert "**Not comparable: records of rendered_faces differ among themselves.**" in text


def test_quick_and_drawn_are_stamped_overall() -> None:
    quick = SuiteRef(name="quick", version=1, quick=True)
    text = render_tables([edit(suite=quick), dogs(suite=quick)]).split("\n## ")[0]
    assert "no number is shown" in text and "not photographs" in text


def test_shift_overall_by_data_set() -> None:
    text = render_tables(
        [
            edit("hat", drift={"smiling": 0.2, "hat": 9.0, "blond": -0.4}),
            dogs("hat", drift={"tongue": -0.5, "hat": 9.0}),
        ]
    )
    assert cells(text, f"{SHIFT}, overall", "casl") == {
        "method": "casl", "rendered_dogs": "0.50", "rendered_faces": "0.30",
        "all": "0.40 [−0.87, 1.67]",
    }  # fmt: skip


def test_cost_overall() -> None:
    slow = provenance(fit_seconds=20.34)
    text = render_tables([edit(), dogs(provenance=slow)])
    found = cells(text, "Cost, overall", "casl")
    assert (found["fit (s)"], found["supervision"]) == ("16.3 [−34.5, 67.2]", "text")


def test_reconstruction_and_sae_overall_by_data_set() -> None:
    records = [
        edit(),
        dogs(),
        other("reconstruction", "rendered_faces", {"psnr": 30.0}),
        other("reconstruction", "rendered_dogs", {"psnr": 33.0}),
        other("sae", "rendered_faces", {"sae.l0": 32.0, "pca.l0": 5.0}),
    ]
    text = render_tables(records)
    section = "Reconstruction (no edit), overall"
    assert cells(text, section, "rendered_dogs")["PSNR (dB) ↑"] == "33.000"
    assert cells(text, section, "mean")["PSNR (dB) ↑"] == "31.500 [12.441, 50.559]"
    section = "SAE reconstruction of h, overall"
    assert cells(text, section, "rendered_faces") == {"data set": "rendered_faces", "L0": "32.000"}
    assert cells(text, section, "mean")["L0"] == "— [1]"
    assert "[1] no number for rendered_dogs" in part(text, section)


def test_probe_overall_by_k() -> None:
    def probe(dataset: str, top: float) -> RunRecord:
        return other("probe", dataset, {"top_units.k1": top, "raw_h": 1.0}, method="casl",
                     concept="hat")  # fmt: skip

    title = "top (latent, position) units"
    both = [edit(), dogs(), probe("rendered_faces", 0.6), probe("rendered_dogs", 0.8)]
    section = "SVM probe, overall"
    assert cells(render_tables(both), section, title)["k = 1"] == "0.70 [0.00, 1.00]"
    text = render_tables(both[:3])
    assert cells(text, section, title)["k = 1"] == "— [1]"
    assert "[1] no number for all of rendered_dogs" in part(text, section)


def test_the_order_of_records_does_not_matter() -> None:
    drift = dict.fromkeys(FACES, 0.1)
    records = [
        *(edit(c, method=m, drift=drift) for c in ("hat", "blond") for m in ("casl", "asyrp")),
        *(dogs(c, method=m) for c in ("hat", "tongue") for m in ("casl", "asyrp")),
        other("sae", "rendered_faces", {"sae.l0": 32.0}),
        other("sae", "rendered_dogs", {"sae.l0": 31.0}),
        other("probe", "rendered_dogs", {"raw_h": 1.0}, method="casl", concept="hat"),
        edit("hat", method="identity", control=True, drift=drift, provenance=provenance(threads=8)),
    ]
    expected = render_tables(records)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert render_tables(records) == expected


def test_names_cannot_break_the_tables() -> None:
    name = "a|b<i>"
    text = render_tables([edit(), dogs(dataset=name, attributes=("x|y", "hat"), drift={"x|y": 1.0},
                                       provenance=provenance(device=name))])  # fmt: skip
    assert "<i>" not in text
    widths = {}
    for line in part(text, "Cost, overall").splitlines() + part(text, SHIFT).splitlines():
        if line.startswith("|"):
            widths.setdefault(len(line.replace("\\|", "").split("|")), line)
    assert len(widths) <= 3  # of the cost table, the drift table and its fold


def shared(dataset: str = "rendered_faces") -> list[RunRecord]:
    """Inversions of 60 s, an SAE of 30 s."""
    inversion = provenance(seconds={"inversion train": 60.0}, fit_seconds=None)
    sae = provenance(seconds={}, fit_seconds=30.0)
    return [
        other("reconstruction", dataset, {"psnr": 30.0}, provenance=inversion),
        other("sae", dataset, {"sae.explained_variance": 0.9}, provenance=sae),
    ]


def two_concepts(method: str, fit: float, edit_seconds: float, **changes: Any) -> list[RunRecord]:
    spent = provenance(seconds={"edit": edit_seconds * 32 * 3}, fit_seconds=fit)
    return [
        edit(c, method=method, provenance=spent, **changes) for c in ("hat", "smiling")
    ]  # 32 images at three strengths


def test_set_up_is_shared_by_concepts_and_paid_by_methods_that_use_it() -> None:
    with_sae = two_concepts("casl", 10.0, 0.1, artifacts={"sae": "b" * 64})
    without = two_concepts("asyrp", 20.0, 0.5)
    text = render_tables([*with_sae, *without, *shared()])
    names = ("set-up, its share (s)", "fit (s)", "edit (s)", "100 edits of a concept (s)")
    casl, asyrp = (cells(text, "Cost", name) for name in ("casl", "asyrp"))
    assert [casl[n] for n in names] == ["45.0", "10.0", "0.100", "65.0"]
    assert [asyrp[n] for n in names] == ["30.0", "20.0", "0.500", "100.0"]


def test_without_the_time_of_the_set_up_nothing_is_shared() -> None:
    text = part(render_tables(two_concepts("asyrp", 20.0, 0.5)), "Cost")
    assert "fit (s)" in text and "set-up" not in text


def test_no_shared_cost_over_fewer_concepts() -> None:
    records = [*two_concepts("asyrp", 20.0, 0.5), *two_concepts("casl", 9.0, 0.5)[:1], *shared()]
    text = render_tables(records)
    assert cells(text, "Cost", "asyrp")["set-up, its share (s)"] == "30.0"
    assert cells(text, "Cost", "casl")["set-up, its share (s)"] == "— [1]"
    assert "[1] no number for smiling" in part(text, "Cost")


def test_controls_pay_no_set_up() -> None:
    control = edit("hat", method="oracle", control=True)
    text = render_tables([*two_concepts("asyrp", 20.0, 0.5), *shared(), control])
    assert "set-up" not in part(text, "Cost").split("<summary>controls</summary>")[1]


def test_set_up_over_data_sets_is_each_ones_own() -> None:
    faces = two_concepts("asyrp", 20.0, 0.5)
    spent = provenance(seconds={"edit": 48.0}, fit_seconds=20.0)
    records = [*faces, *shared(), dogs("tongue", method="asyrp", provenance=spent)]
    text = render_tables([*records, *shared("rendered_dogs")])
    found = cells(text, "Cost, overall", "asyrp")
    assert found["set-up, its share (s)"] == "40.0"  # (30 + 30 + 60) / 3
