"""The files of the study: records, and the page with its figures that are made of them alone."""

from __future__ import annotations

from pathlib import Path

from casl_bench.core.files import write_bytes, write_text
from casl_bench.studies.metric_validity.names import PAGE, RANKING_FIGURE, RECORDS, RESPONSE_FIGURE
from casl_bench.studies.metric_validity.study_records import StudyRecords
from casl_bench.studies.study_files import read_text


def write_records(folder: Path, records: StudyRecords) -> None:
    """One JSON line each.

    Raises:
        UsageError: where the folder cannot be written.
    """
    write_text(folder / RECORDS, records.to_jsonl())


def read_records(folder: Path) -> StudyRecords:
    """The records in a folder.

    Raises:
        UsageError: there are none.
        InvalidBenchmarkError: the file is something else.
    """
    path = folder / RECORDS
    text = read_text(path, mend="make them, without --render-only")
    return StudyRecords.from_jsonl(text, str(path))


def write_page(folder: Path, records: StudyRecords) -> Path:
    """Page and figures.

    Returns:
        The page.

    Raises:
        UsageError: where the folder cannot be written.
    """
    from casl_bench.studies.metric_validity.figures import ranking_figure, response_figure
    from casl_bench.studies.metric_validity.page import render_page

    write_bytes(folder / RANKING_FIGURE, ranking_figure(records))
    write_bytes(folder / RESPONSE_FIGURE, response_figure(records))
    write_text(folder / PAGE, render_page(records))
    return folder / PAGE
