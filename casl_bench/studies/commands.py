"""`casl-bench study …`: studies of the benchmark itself. torch is imported once one runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


@click.group("study")
def study_group() -> None:
    """Make a study of the benchmark itself: its records, its page and its figures."""


@study_group.command("metric-validity")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/studies"),
              show_default=True, help="Folder of records, page and figures.")  # fmt: skip
@click.option("--images", type=click.IntRange(min=4), default=64, show_default=True,
              help="Images of each concept.")  # fmt: skip
@click.option(
    "--render-only", is_flag=True, help="Make page and figures anew of the records in the folder."
)
def metric_validity_command(out: Path, images: int, render_only: bool) -> Callable[[], int]:
    """How well each metric ranks edits whose precision is known, and what tricks gain.

    Some ten minutes on one core.
    """

    def action() -> int:
        from casl_bench.studies.metric_validity.files import read_records, write_page, write_records

        if not render_only:
            from casl_bench.runs.preflight import check_torch

            check_torch()
            from casl_bench.studies.metric_validity.make_study import make_study

            records = make_study(images=images, say=lambda text: click.echo(text, err=True))
            write_records(out, records)
        click.echo(str(write_page(out, read_records(out))))
        return 0

    return action
