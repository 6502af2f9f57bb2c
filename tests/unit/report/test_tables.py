"""Tables and pictures as functions of records."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from casl_bench.analysis.headline import PreciseEdits
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.metrics.metric import METRICS, EditMetric, MetricInfo
from casl_bench.report.columns import shown
from casl_bench.report.grouping import Number
from casl_bench.report.markdown import Footnotes, compact, escape, number
from casl_bench.report.pictures import (
    ReportedEdits,
    Row,
    draw_cell,
    draw_comparison,
    draw_rows,
    median_image,
    write_pictures,
)
from casl_bench.report.tables import render_tables
from casl_bench.results.edited_images import FILE_NAME, EditedImages, to_pixels
from casl_bench.results.record import (
    NOT_CARRIED,
    Cost,
    ErrorInfo,
    FileRef,
    Measurement,
    Provenance,
    RunRecord,
    SuiteRef,
)
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.stored_cells import cell_of

NOBODY = Provenance(
    package_version="0",
    git_commit=None,
    git_dirty=None,
    packages={},
    device="cpu",
    platform="test",
    started_at="2026-01-01T00:00:00+00:00",
)


def ok(value: float, low: float | None = None, high: float | None = None) -> Measurement:
    return Measurement(status="ok", value=value, low=low, high=high, n=32)


def record(kind: Any = "edit", **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "kind": kind,
        "world": "synth",
        "dataset": "rendered_faces",
        "dataset_revision": "r1",
        "suite": SuiteRef(name="standard", version=1),
        "seed": 0,
        "provenance": NOBODY,
    }
    if kind == "edit":
        fields |= {
            "method": "casl",
            "concept": "hat",
            "supervision": "text",
            "strength": 1.0,
            "strength_chosen_on": "validation",
            "attributes": ("smiling", "hat"),
            "scorers": {"classifier_a": "a" * 64},
            "backbone": "b" * 64,
            "cost": Cost(parameters=1234567, unet_calls=2000),
            "measurements": {"epr_floored": ok(2.5, 2.0, 3.0), "flip_rate": ok(0.75)},
        }
    return RunRecord(**(fields | changes))


def row(text: str, section: str, start: str) -> list[str]:
    """Cells of the first row of a section's table whose first cell is this."""
    part = text.split(f"### {section}\n", 1)[1]
    line = next(line for line in part.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def column(text: str, section: str, start: str, heading: str) -> str:
    part = text.split(f"### {section}\n", 1)[1]
    headings = next(line for line in part.splitlines() if line.startswith("| "))
    place = [h.strip() for h in headings.strip("|").split(" | ")].index(heading)
    return row(text, section, start)[place]


# Edit tables ----------------------------------------------------------------------------------


def test_a_row_is_the_mean_over_concepts() -> None:
    text = render_tables(
        [record(), record(concept="smiling", measurements={"epr_floored": ok(3.5)})]
    )
    # 2.5 and 3.5: mean 3, standard error 0.5, and 12.7 of them with one degree of freedom.
    assert column(text, "Edits", "casl", "EPR (noise-floored) ↑") == "3.00 [−3.35, 9.35]"
    assert column(text, "Edits", "casl", "cells") == "2/2"
    assert column(text, "Edits", "casl", "parameters") == "1,234,567"


def test_no_mean_over_fewer_concepts() -> None:
    text = render_tables([record(), record(concept="smiling"), record(method="asyrp")])
    assert column(text, "Edits", "asyrp", "EPR (noise-floored) ↑") == "— [1]"
    assert column(text, "Edits", "asyrp", "cells") == "1/2"
    assert "[1] no number for smiling" in text
    assert column(text, "Edits", "casl", "EPR (noise-floored) ↑") == "2.50"


def test_a_failed_cell_is_no_zero() -> None:
    failed = record(
        concept="smiling",
        status="failed",
        error=ErrorInfo(type="InputError", message="a | pipe\nand <b>a line</b>"),
        measurements={},
    )
    text = render_tables([record(), failed])
    assert column(text, "Edits", "casl", "EPR (noise-floored) ↑") == "— [1]"
    assert column(text, "Edits", "casl", "cells") == "1/2"
    assert "InputError: a \\| pipe and &lt;b&gt;a line&lt;/b&gt;" in text


def test_undefined_says_why() -> None:
    why = "below the noise floor: other attributes moved by 0.1"
    undefined = record(method="identity", control=True,
                       measurements={"epr_floored": Measurement.undefined(why, 32)})  # fmt: skip
    text = render_tables([undefined])
    assert column(text, "Edits", "*identity*", "EPR (noise-floored) ↑") == "— [1]"
    assert "[1] below the noise floor  \n" in text  # of the mean, without one concept's figures
    assert f"[1] {why}" in text


def test_what_no_control_has_is_a_plain_dash() -> None:
    entrant = record(measurements={"epr_over_random": ok(3.0)})
    text = render_tables([record(method="oracle", control=True), entrant])
    assert column(text, "Edits", "*oracle*", "÷ random ↑") == "—"


def test_matched_controls_count_where_they_were_run() -> None:
    missing = Measurement.missing("no random control was matched")
    without = record(
        concept="pale", measurements={"flip_rate": ok(0.5), "epr_over_random": missing}
    )
    matched = record(method="random_rotation", control=True, beside="casl")
    own = record(measurements={"flip_rate": ok(0.75), "epr_over_random": ok(3.0)})
    text = render_tables([own, without, matched])
    assert column(text, "Edits", "casl", "÷ random ↑") == "3.00"
    assert column(text, "Edits", "casl", "flip rate ↑").startswith("0.62")
    assert column(text, "Edits", "*random_rotation matched to casl*", "flip rate ↑") == "0.75"
    assert column(text, "Edits", "*random_rotation matched to casl*", "cells") == "1/1"


def test_what_no_record_has_is_no_column() -> None:
    text = render_tables([record()])
    assert "EPR (noise-floored) ↑" in text and "÷ random ↑" not in text


def test_controls_stand_at_the_foot_entrants_by_name() -> None:
    records = [
        record(method="identity", control=True),
        record(method="random_rotation", control=True, beside="casl"),
        record(method="casl"),
        record(method="asyrp"),
    ]
    text = render_tables(records)
    part = text.split("### Edits\n", 1)[1].split("###", 1)[0]
    names = [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| ")][1:]
    assert names == ["asyrp", "casl", "*identity*", "*random_rotation matched to casl*"]


def test_a_control_that_does_not_apply_has_no_row() -> None:
    skipped = record(
        method="random_rotation",
        control=True,
        beside="asyrp",
        status="skipped",
        error=ErrorInfo(type="NotApplicableError", message="'asyrp' does not edit h-space"),
        measurements={},
    )
    text = render_tables([record(), skipped])
    assert "random_rotation" not in text.split("### Failed or skipped")[0]
    assert "does not edit h-space" in text


def test_intervals_strength_and_flags_by_concept() -> None:
    text = render_tables([record(flags=("wrong way",), strength=1.5)])
    cells = row(text, "Edits, by concept", "hat")
    assert cells[:5] == ["hat", "casl", "1.5", "32", "2.50 [2.00, 3.00]"]
    assert cells[-1] == "wrong way"


def test_images_are_counted_where_the_first_number_is_missing() -> None:
    lacking = {"epr_plus": Measurement.undefined("not reached", 0), "flip_rate": ok(0.75)}
    text = render_tables([record(measurements=lacking)])
    assert column(text, "Edits, by concept", "hat", "n") == "32"


def test_other_classifiers_have_their_say() -> None:
    both = {"epr_floored": ok(2), "epr_floored@cnn_b": ok(1), "flip_rate": ok(1)}
    text = render_tables([record(measurements=both)])
    assert column(text, "Edits, by classifier", "casl", "EPR (noise-floored), cnn_b ↑") == "1.00"
    assert "by classifier" not in render_tables([record()])


def test_the_title_says_what_was_measured() -> None:
    text = render_tables([record()])
    title = text.split("###")[0]
    for part in ("rendered_faces", "(rendered, ", "suite standard v1", "seed 0", "classifier_a"):
        assert part in title
    assert "smiling, hat" in title
    assert "not photographs" in title
    assert "quick" not in title


def test_quick_shows_what_ran_and_no_number() -> None:
    quick = SuiteRef(name="quick", version=1, quick=True)
    error = ErrorInfo(type="ValueError", message="no smile")
    failed = record(suite=quick, method="asyrp", status="failed", measurements={}, error=error)
    text = render_tables([record(suite=quick), record(suite=quick, concept="smiling"), failed])
    assert "no number is shown" in text and "### Failed or skipped" in text and "no smile" in text
    assert column(text, "What ran", "casl", "cells") == "2/2"
    assert "σ" not in text and not re.search(r"\d\.\d", text)


def test_records_that_do_not_compare_are_told() -> None:
    text = render_tables([record(), record(method="asyrp", scorers={"classifier_a": "c" * 64})])
    assert "Not comparable: records differ in scorers" in text


def test_other_seeds_and_suites_are_other_tables() -> None:
    quick = SuiteRef(name="quick", version=1, quick=True)
    text = render_tables([record(seed=10), record(seed=2), record(suite=quick)])
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert ["quick" in t for t in titles] == [True, False, False]
    assert "seed 2)" in titles[1] and "seed 10)" in titles[2]


def test_the_order_of_records_does_not_matter() -> None:
    records = [
        *(record(method=m, concept=c) for m in ("casl", "asyrp") for c in ("hat", "smiling")),
        record("reconstruction", measurements={"psnr": ok(30.123)}),
        record("probe", method="casl", concept="hat", measurements={"raw_h": ok(1)}),
    ]
    expected = render_tables(records)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert render_tables(records) == expected


def test_names_cannot_break_a_table() -> None:
    text = render_tables([record(method="a|b`<script>*x*", concept="[hat](http://x)")])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "<script>" not in text
    assert any("a\\|b\\`&lt;script&gt;\\*x\\*" in line for line in lines)
    assert any("\\[hat\\](http://x)" in line for line in lines)


# The other tables -----------------------------------------------------------------------------


def test_probe_accuracy_by_k() -> None:
    def probe(concept: str, top: float) -> RunRecord:
        found = {
            "top_units.k1": ok(top),
            "top_units.k16": ok(0.9),
            "top_units.k1.shuffled": ok(0.5),
            "random_units.k1": ok(0.6),
            "raw_h": ok(1.0),
            "majority": ok(0.5),
        }
        return record(
            "probe", method="casl", concept=concept, measurements=found, flags=("h at t = 100",)
        )

    text = render_tables([probe("hat", 0.75), probe("smiling", 0.85)])
    title = "top (latent, position) units"
    assert row(text, "SVM probe", title) == [title, "0.80 [0.16, 1.00]", "0.90", ""]
    assert "(h at t = 100)" in text
    assert row(text, "SVM probe", "raw h") == ["raw h", "", "", "1.00"]
    assert row(text, "SVM probe", f"{title}, shuffled")[1:3] == ["0.50", ""]
    fold = text.split("<details>", 1)[1]
    assert "**hat**" in fold and "**smiling**" in fold and "0.75" in fold
    assert fold.index("0.75") < fold.index("0.85")


def test_sae_beside_pca_and_mean() -> None:
    found = {
        "sae.explained_variance": ok(0.91),
        "sae.l0": ok(32),
        "pca.explained_variance": ok(0.8),
        "mean.explained_variance": ok(0.0),
    }
    text = render_tables([record("sae", measurements=found)])
    assert row(text, "SAE reconstruction of h", "SAE") == ["SAE", "0.910", "32.000"]
    assert row(text, "SAE reconstruction of h", "PCA of the same rank")[1:] == ["0.800", ""]


def test_reconstruction_stands_apart() -> None:
    text = render_tables([record("reconstruction", measurements={"x_T_std": ok(0.7),
                                                                 "psnr": ok(31.5)})])  # fmt: skip
    assert column(text, "Reconstruction (no edit)", "rendered_faces", "PSNR (dB) ↑") == "31.500"
    assert "### Edits" not in text


# Pieces ---------------------------------------------------------------------------------------


def test_what_h_does_not_carry_is_said_above_the_tables() -> None:
    left_out = record("reconstruction", flags=(f"{NOT_CARRIED}mouth_open",))
    other = record("reconstruction", dataset="rendered_dogs")
    line = "Not carried by h, so no concept for any method: {}. No edit may move it all the same."
    assert line.format("mouth_open") in render_tables([record(), left_out])
    overall, *_ = render_tables([record(), left_out, other]).split("\n\n## ")
    assert line.format("rendered_faces: mouth_open") in overall
    assert "Not carried" not in render_tables([record(), other])


def test_numbers() -> None:
    assert number(-0.001) == "0.00"
    assert number(-1.5) == "−1.50"
    assert number(1234567.0, 0) == "1,234,567"


def test_footnotes_share_a_number() -> None:
    notes = Footnotes()
    assert shown(Number(reason="a"), notes) == "— [1]"
    assert shown(Number(reason="b"), notes) == "— [2]"
    assert shown(Number(reason="a"), notes) == "— [1]"
    assert shown(Number(), notes) == "—"
    assert notes.under("table") == "table\n\n[1] a  \n[2] b  "
    assert Footnotes().under("table") == "table"


def test_escaping_keeps_words_readable() -> None:
    assert escape("random_rotation") == "random_rotation"
    assert escape("_a_ \x1b[31m\nb") == "\\_a\\_ \\\\u001b\\[31m b"


def test_compact_tables_hold_the_same_cells() -> None:
    text = render_tables([record(), record("reconstruction", measurements={"psnr": ok(1)})])
    squeezed = compact(text)
    assert len(squeezed) < 0.9 * len(text)
    cells = [[c.strip(" -:") for c in line.split("|")] for line in text.splitlines()]
    assert cells == [[c.strip(" -:") for c in line.split("|")] for line in squeezed.splitlines()]


# A metric of somebody else ----------------------------------------------------------------------


def test_a_registered_metric_has_a_column_by_its_declaration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = MetricInfo("sharpness", 1, False, "sd", (None, None), "lost sharpness")
    metric = EditMetric(info, lambda s: s.edit, lambda means: means[..., 0])
    monkeypatch.setattr(METRICS, "names", lambda: ("sharpness",))
    monkeypatch.setattr(METRICS, "create", lambda name: metric)
    own = record(measurements={"sharpness": ok(0.5), "flip_rate": ok(1.0)})
    text = render_tables([own])
    assert column(text, "Edits", "casl", "lost sharpness (σ) ↓") == "0.50"
    assert column(text, "Edits, by concept", "hat", "lost sharpness (σ) ↓") == "0.50"


def test_a_metric_that_is_not_registered_here_is_shown_under_its_name() -> None:
    text = render_tables([record(measurements={"my_metric": ok(0.5)})])
    assert column(text, "Edits", "casl", "my metric") == "0.50"


def test_measurements_of_older_versions_have_their_column() -> None:
    text = render_tables([record(measurements={"flip_precision": ok(0.5)})])
    assert column(text, "Edits", "casl", "off-target flips per flip ↓") == "0.50"
    assert "flip precision" not in text


# Pictures -------------------------------------------------------------------------------------


def pictures(n: int = 2, strengths: tuple[float, ...] = (0.5, 1.0), oracle: bool = True,
             level: int = 0) -> EditedImages:  # fmt: skip
    rng = np.random.default_rng(level)

    def images(*shape: int) -> np.ndarray:
        return rng.integers(0, 255, (*shape, 8, 8, 3), dtype=np.uint8)

    ids = tuple(f"i{k}" for k in range(n))
    s = len(strengths)
    return EditedImages(ids, strengths, images(n), images(n), images(s, n),
                        images(n) if oracle else None)  # fmt: skip


@pytest.mark.parametrize("oracle", [True, False])
def test_stored_pictures_come_back(oracle: bool) -> None:
    stored = pictures(oracle=oracle)
    data = stored.to_bytes()
    again = EditedImages.from_bytes(data)
    assert again.image_ids == stored.image_ids and again.strengths == stored.strengths
    np.testing.assert_array_equal(again.edits, stored.edits)
    assert (again.oracle is not None) == oracle
    assert again.to_bytes() == data


@pytest.mark.parametrize("data", [b"", b"PK", pictures().to_bytes()[:200]])
def test_damaged_pictures_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBenchmarkError, match="not a cell's pictures"):
        EditedImages.from_bytes(data, where="images.npz")


def test_pictures_that_do_not_fit_are_refused() -> None:
    good = pictures()
    with pytest.raises(InputError, match="edits"):
        EditedImages(good.image_ids, (1.0,), good.source, good.reconstruction, good.edits)


def test_pixels_are_rounded_and_clipped() -> None:
    x = np.array([-2, -1, 0, 1, 2], dtype=np.float32).reshape(1, 1, 5).repeat(3, 0)
    assert to_pixels(x)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_strip_shows_every_column() -> None:
    images = pictures(n=9)
    small = draw_cell(images, title="hat: casl", max_rows=2)
    large = draw_cell(images, title="hat: casl", max_rows=3)
    assert large.height - small.height == 8 * 3 + 6
    assert small.width >= 5 * 8 * 3


def test_pictures_stand_where_they_should() -> None:
    red = np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)
    drawn = np.asarray(draw_rows(("a", "b"), [Row("", (None, red))], scale=2))
    places = np.argwhere((drawn == (255, 0, 0)).all(-1))
    assert len(places) == 8 * 8
    assert places[:, 1].min() > drawn.shape[1] / 2


def test_a_comparison_has_a_row_a_concept_and_a_column_a_method() -> None:
    images = pictures(n=3)
    casl, asyrp = ReportedEdits(images, 0.5), ReportedEdits(images, 1.0)
    assert np.array_equal(casl.edit(1), images.edits[0, 1])
    assert np.array_equal(asyrp.edit(1), images.edits[1, 1])
    # A strength that no picture was kept of leaves the place empty.
    assert ReportedEdits(images, 3.0).edit(0) is None
    both = draw_comparison([("hat", {"casl": casl, "asyrp": asyrp}), ("blond", {"casl": casl})])
    one = draw_comparison([("blond", {"casl": casl})], image=99)
    assert both.height - one.height == 8 * 2 + 6
    assert both.width - one.width == 8 * 2 + 6
    unknown = ReportedEdits(pictures(n=3, oracle=False), 0.5)
    assert one.width - draw_comparison([("blond", {"casl": unknown})]).width == 8 * 2 + 6
    # The missing cell is paper, from its own column on.
    lower = np.asarray(both)[-26:-10]
    assert (lower[:, -48:-32] == 255).all() and not (lower[:, -26:-10] == 255).all()


def test_a_run_gets_its_pictures_once(tmp_path: Path) -> None:
    store, numbers = RecordStore(tmp_path), []
    for method, strengths in (("casl", (0.5, 1.0)), ("asyrp", (0.5, 1.0)), ("odd", (3.0,))):
        data = pictures(strengths=strengths).to_bytes()
        ref = FileRef(file=FILE_NAME, sha256=hashlib.sha256(data).hexdigest())
        numbers.append(record(method=method, images=ref))
        store.write(cell_of(numbers[-1]), {FILE_NAME: data})
    folder = write_pictures(store, numbers)
    made = {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    assert set(made) == {
        "rendered_faces.png",
        *(f"rendered_faces/{m}/hat.png" for m in ("casl", "asyrp", "odd")),
    }
    with Image.open(folder / "rendered_faces.png") as picture:
        picture.load()
    write_pictures(store, numbers)
    again = {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    assert again == made


def test_the_image_shown_is_the_median_over_methods() -> None:
    def found(*credit: float) -> PreciseEdits:
        there = np.array([True, True, True, True, False])
        return PreciseEdits(tuple("abcde"), np.array(credit), there, np.array(credit))

    # Means 0.3, 0.9, 0.5, 0.1; "e" had the target before.
    both = [found(0.2, 1.0, 0.4, 0.0, 0.4), found(0.4, 0.8, 0.6, 0.2, 0.3)]
    assert median_image(both, "abcde") == "a", "the lower of the two in the middle"
    assert median_image(both, "abc") == "c", "pictures are kept of some images alone"
    assert median_image(both, "e") == "e", "or of none that counts"
