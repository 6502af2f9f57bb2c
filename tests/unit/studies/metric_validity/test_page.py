"""The committed page is what the committed records render, by the command that it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from casl_bench.cli.main import main
from casl_bench.core.files import hash_bytes
from casl_bench.studies.metric_validity.page import (
    MADE_FROM,
    PAGE,
    RANKING_FIGURE,
    RECORDS,
    RESPONSE_FIGURE,
    ranking_figure,
    read_study,
    response_figure,
)

FOLDER = Path(__file__).parents[4] / "docs" / "studies"
FIGURES = (RANKING_FIGURE, RESPONSE_FIGURE)


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_are_of_these_records(name: str) -> None:
    made_from = hash_bytes((FOLDER / RECORDS).read_bytes())
    with Image.open(FOLDER / name) as picture:
        assert picture.info[MADE_FROM] == made_from
    assert (FOLDER / name).stat().st_size < 100_000


def test_the_files_are_small() -> None:
    assert (FOLDER / RECORDS).stat().st_size < 1_000_000


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_renders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / RECORDS).write_bytes((FOLDER / RECORDS).read_bytes())
    assert main(["study", "metric-validity", "--render-only", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip().endswith(PAGE)
    committed = (FOLDER / PAGE).read_text(encoding="utf-8")
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == committed
    for name in FIGURES:
        assert (tmp_path / name).is_file() and name in committed


@pytest.mark.slow
def test_figures_are_the_same_bytes_again() -> None:
    records = read_study(FOLDER)
    first = records.edits[0].concept
    few = replace(records, edits=tuple(r for r in records.edits if r.concept == first), tricks=())
    assert ranking_figure(few) == ranking_figure(few)
    assert response_figure(few) == response_figure(few)


def test_a_folder_without_records_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "metric-validity", "--render-only", "--out", str(tmp_path)]) == 2
    assert "no records of the study" in capsys.readouterr().err
