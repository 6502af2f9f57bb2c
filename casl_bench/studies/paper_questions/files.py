"""The files of the study: its rows, and the page with its figure."""

from __future__ import annotations

from pathlib import Path

from casl_bench.core.files import write_bytes, write_text
from casl_bench.studies.paper_questions.answers import Evidence
from casl_bench.studies.paper_questions.names import FIGURE, PAGE, ROWS
from casl_bench.studies.paper_questions.rows import LatentRows
from casl_bench.studies.study_files import read_text


def write_rows(folder: Path, rows: LatentRows) -> None:
    """One JSON line each.

    Raises:
        UsageError: where the folder cannot be written.
    """
    write_text(folder / ROWS, rows.to_jsonl())


def read_rows(folder: Path) -> LatentRows:
    """The rows in a folder.

    Raises:
        UsageError: there are none.
        InvalidBenchmarkError: the file is something else.
    """
    path = folder / ROWS
    text = read_text(path, mend="make them: give the run folder")
    return LatentRows.from_jsonl(text, str(path))


def write_page(folder: Path, evidence: Evidence) -> Path:
    """Page and figure.

    Returns:
        The page.

    Raises:
        UsageError: where the folder cannot be written.
    """
    from casl_bench.studies.paper_questions.figure import draw_figure
    from casl_bench.studies.paper_questions.page import render_page

    write_bytes(folder / FIGURE, draw_figure(evidence))
    write_text(folder / PAGE, render_page(evidence))
    return folder / PAGE
