"""What pages are made of: markdown, pictures in sheets, changes in σ, bounds, figures."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from casl_bench.report.grouping import Group, RowKey
from casl_bench.report.html.edit_grid import Kept, Sheets, image_changes
from casl_bench.report.html.figures import (
    Figures,
    concept_curves,
    shift_matrices,
    standings_chart,
    styles_of,
)
from casl_bench.report.html.from_markdown import FEW_NOTES, fold_first, to_html, without_heading
from casl_bench.report.html.sections import bounds_of, logit_spreads
from casl_bench.report.markdown import Footnotes, escape, fold, table
from casl_bench.report.pictures import load_images
from casl_bench.results.edited_images import LARGEST
from casl_bench.results.record import Measurement

CASL = RowKey(False, "casl")


@pytest.fixture(scope="module")
def group(run: Any) -> Group:
    return Group(run.records)


# Markdown -------------------------------------------------------------------------------------


def test_a_table_scrolls_and_a_fold_is_a_fold() -> None:
    html = to_html(fold("two & more", table(["a", "b"], [["x", "1.00"]])))
    assert html.startswith("<details><summary>two &amp; more</summary>")
    assert '<div class="scroll"' in html and html.count("</table></div>") == 1
    assert html.rstrip().endswith("</details>")


def test_long_notes_are_folded_and_short_ones_are_not() -> None:
    for count in (FEW_NOTES, FEW_NOTES + 1):
        notes = Footnotes()
        rows = [["x", notes.mark(f"reason {i}")] for i in range(count)]
        html = to_html(notes.under(table(["a", "b"], rows)))
        assert ("<details>" in html) == (count > FEW_NOTES)
        assert html.count('<p class="notes">') == 1 and f"[{count}] reason {count - 1}" in html


def test_the_name_stays_in_sight_wherever_it_stands() -> None:
    for headings, second in ((["rank", "method"], True), (["method", "rank"], False)):
        assert ('<table class="second">' in to_html(table(headings, [["1", "2"]]))) == second


def test_a_heading_explains_itself() -> None:
    html = to_html(table(["method", "flip rate ↑"], [["casl", "0.50"]]))
    assert 'title="share of images whose target is on after, not before">flip rate ↑</th>' in html
    assert "<th>method</th>" in html or '<th style="text-align:left">method</th>' in html


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "![x](http://a/b)", "<details>", "[a](javascript:b)"]
)
def test_a_name_is_text_whether_escaped_or_not(name: str) -> None:
    for text in (escape(name), name):
        html = to_html(table(["method"], [[text]]))
        tags = set(re.findall(r"<(\w+)", html))
        assert tags <= {"div", "table", "thead", "tbody", "tr", "th", "td"}


def test_a_heading_is_taken_off() -> None:
    assert without_heading("### Edits\n\nMeans.") == ("Edits", "Means.")
    assert without_heading("Means.") == ("", "Means.")


def test_the_first_paragraph_is_folded() -> None:
    html = fold_first(to_html("Long <b> & **words**.\n\nMore."), "How")
    assert html == (
        "<details><summary>How</summary><p>Long &lt;b&gt; &amp; <strong>words</strong>.</p>"
        "</details>\n<p>More.</p>\n"
    )
    assert fold_first(to_html("- a"), "How") == to_html("- a")


# Pictures -------------------------------------------------------------------------------------


def test_a_picture_is_found_where_its_style_says(tmp_path: Path) -> None:
    colours = [(17 * i, 255 - 15 * i, 128) for i in range(15)]
    sheet = Sheets(tmp_path).new("../<evil>")
    for colour in colours:
        sheet.add(np.full((8, 8, 3), colour, np.uint8))
    sheet.write(tmp_path)
    assert sheet.file == "images/001-evil.webp"
    with Image.open(tmp_path / sheet.file) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    for number, colour in enumerate(colours):
        width, height, x, y = map(float, re.findall(r"([\d.]+)%", sheet.style(number)))
        across, down = width / 100, height / 100
        left = round(x / 100 * (pixels.shape[1] - pixels.shape[1] / across))
        top = round(y / 100 * (pixels.shape[0] - pixels.shape[0] / down))
        assert np.abs(pixels[top + 4, left + 4] - colour).max() < 12


def test_large_pictures_are_kept_smaller(tmp_path: Path) -> None:
    sheet = Sheets(tmp_path).new("x")
    sheet.add(np.zeros((256, 512, 3), np.uint8))
    assert sheet._tiles[0].shape == (LARGEST // 2, LARGEST, 3)


# Changes of an image --------------------------------------------------------------------------


def test_sigma_is_that_of_the_scorers_record(group: Group, fake: ModuleType) -> None:
    assert logit_spreads(group)["classifier_a"].tolist() == list(fake.SPREADS)
    assert logit_spreads(Group(group.of_kind("edit"))) == {}


def test_changes_of_images_are_those_of_the_records(
    run: Any, group: Group, fake: ModuleType
) -> None:
    record = group.done(CASL)["hat"]
    scores = run.store.scores(record)
    assert scores is not None
    cell, spreads = Kept(record, load_images(run.store, record), scores), logit_spreads(group)
    mean = np.mean([image_changes(cell, spreads, 1.0, i)["hat"] for i in range(fake.IMAGES)])
    assert mean == pytest.approx(record.drift["hat"], rel=1e-3)
    assert set(image_changes(cell, {}, 1.0, 0).values()) == {None}
    assert image_changes(cell, spreads, 9.0, 0) == {}


# Controls -------------------------------------------------------------------------------------


def test_bounds_hold_are_broken_or_say_nothing(run: Any, fake: ModuleType, tmp_path: Path) -> None:
    verdicts = {b.control: b.verdict for b in bounds_of(run.records)}
    assert verdicts["identity"] == verdicts["random_direction"] == "holds"
    assert verdicts["destroy"] == verdicts["shuffled"] == "not run"
    broken = fake.FakeRun(tmp_path, concepts=["hat"]).write(moved_identity=0.5)
    (identity,) = [b for b in bounds_of(broken.records) if b.control == "identity"]
    assert identity.verdict == "broken" and "hat" in identity.faults[0]


def test_a_matrix_marks_what_was_asked_for(group: Group) -> None:
    matrix = next(m for m in shift_matrices(group) if m.name == "casl")
    rows = dict(matrix.rows)
    assert matrix.attributes == ("smiling", "hat", "pale")
    assert [cell.target for cell in rows["hat"]] == [False, True, False]
    assert rows["hat"][1].sign == "up" and rows["hat"][1].shade == 1.0
    assert rows["hat"][0].shade == pytest.approx(0.1, abs=0.05)
    assert not any("#1" in m.name for m in shift_matrices(group))


# Figures --------------------------------------------------------------------------------------


class Seen(Figures):
    """Keeps the numbers that are drawn."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lines: list[dict[str, list[tuple[float, float]]]] = []

    def keep(self, axes: Any, name: str, title: str, series: dict[int, str]) -> Any:
        drawn = {line.get_label(): line for line in axes.get_lines()}
        self.lines.append(
            {
                label: list(zip(line.get_xdata(), line.get_ydata(), strict=True))
                for label, line in drawn.items()
                if not label.startswith("_")
            }
        )
        return super().keep(axes, name, title, series)


def test_curves_are_the_records_numbers(group: Group, tmp_path: Path) -> None:
    figures = Seen(tmp_path)
    styles = styles_of([CASL, RowKey(True, "oracle")])
    response, precision = concept_curves(group, "hat", styles, figures)
    by_strength, by_effect = figures.lines
    assert set(by_strength) == {"casl", "oracle (control)"}
    assert by_strength["casl"] == [(s, 1.5 * s) for s in (0.25, 0.5, 1.0, 2.0)]
    assert by_effect["casl"] == [(1.5 * s, 4.5 - s) for s in (0.25, 0.5, 1.0, 2.0)]
    for drawing in (response, precision):
        assert "validation images" in drawing.title
        assert (tmp_path / drawing.svg).is_file() and (tmp_path / drawing.png).is_file()
    both = response.markup + precision.markup
    ids = re.findall(r'\bid="([^"]+)"', both)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', both)) <= {
        pair for i in ids for pair in ((i, ""), ("", i))
    }
    assert 'data-series="0"><title>casl</title>' in both
    assert "currentColor" in both and "#010203" not in both
    assert not re.search(r'(src|href)="(?!#)', both)


def test_standings_without_a_number_are_not_drawn(group: Group, tmp_path: Path) -> None:
    (record,) = group.of_kind("comparison")
    assert record.comparison is not None
    first, second = record.comparison.standings
    none = Measurement.undefined("nothing moved")
    unknown = second.model_copy(update={"epr_plus": none, "epr_plus_here": none})
    found = record.comparison.model_copy(update={"standings": (first, unknown)})
    figures = Seen(tmp_path)
    styles = styles_of([CASL, RowKey(False, "asyrp")])
    drawing = standings_chart(found, "faces", styles, figures)
    marks = re.findall(r'data-series="(\d)"', drawing.markup)
    assert marks == ["0", "0", "0"]


def test_a_very_wide_interval_has_few_ticks(group: Group, tmp_path: Path) -> None:
    found = group.comparison
    assert found is not None
    wide = Measurement(status="ok", value=3.0, low=-5e6, high=7e7)
    standing = found.standings[0].model_copy(update={"epr_plus": wide})
    figures = Figures(tmp_path)
    one = found.model_copy(update={"standings": (standing,)})
    drawing = standings_chart(one, "faces", styles_of([CASL]), figures)
    assert 3 <= len(re.findall(r'id="xtick_\d+"', (tmp_path / drawing.svg).read_text())) <= 10


def test_no_two_entrants_look_alike() -> None:
    rows = [RowKey(False, f"method_{i}") for i in range(20)]
    styles = styles_of(rows)
    assert len({(s.colour, s.dash, s.marker) for s in styles.values()}) == 20
    assert len({s.series for s in styles.values()}) == 20
