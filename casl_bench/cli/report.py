"""What is printed and drawn of a run folder: at the end of a run, and by three commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.core.option_types import BoundedInt


def report_run(out: Path) -> None:
    """Write and print the table of an analysed run folder; draw its pictures.

    Args:
        out: the run folder; nothing is written where it holds no numbers.
    """
    from casl_bench.analysis.analyse import NUMBERS_FILE
    from casl_bench.core.files import write_text
    from casl_bench.report.pictures import write_pictures
    from casl_bench.report.tables import render_tables
    from casl_bench.results.run_folder import RecordStore, read_jsonl

    path = out / NUMBERS_FILE
    numbers = read_jsonl(path) if path.is_file() else []
    if numbers:
        table = render_tables(numbers)
        write_text(out / "table.md", table)
        write_pictures(RecordStore(out), numbers)
        click.echo(table, nl=False)


@click.command("table")
@click.argument("where", metavar="RECORDS", type=click.Path(path_type=Path, exists=True))
def table_command(where: Path) -> Callable[[], int]:
    """Print the table of RECORDS, a run folder or a file of numbers, made anew."""

    def action() -> int:
        from casl_bench.analysis.analyse import read_numbers
        from casl_bench.analysis.controls import check_bounds
        from casl_bench.report.tables import render_tables

        records = read_numbers(where)
        check_bounds(records, where)
        click.echo(render_tables(records), nl=False)
        return 0

    return action


@click.command("picture")
@click.argument("run_folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--concepts", default="", metavar="NAMES", help="Which.  [default: all]")
@click.option("--image", type=BoundedInt(0), default=0, help="Place of the test image.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG file to write.")
def picture_command(run_folder: Path, concepts: str, image: int, out: Path) -> Callable[[], int]:
    """Draw one test image per concept and method: source, reconstruction, edits, oracle."""
    names = concepts.replace(",", " ").split()

    def action() -> int:
        from casl_bench.analysis.analyse import read_numbers
        from casl_bench.report.pictures import write_overview
        from casl_bench.results.run_folder import RecordStore

        write_overview(RecordStore(run_folder), read_numbers(run_folder), names, image, out)
        return 0

    return action


# `casl-bench report RUN`: what draws pages and figures is imported once it runs.


@click.command("report")
@click.argument("records", metavar="RUN", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report; an older one "
              "in it is replaced.  [default: RUN/report, or FILE-report]")  # fmt: skip
def report_command(records: Path, out: Path | None) -> Callable[[], int]:
    """Write a report of RUN, a run folder or a file of numbers, that opens in a browser from disk.

    From a file of records alone there are no pictures. Exit code 5, with the report written but
    without a ranking, where a control is out of its bounds.
    """
    beside = records.with_name(f"{records.stem}-report")
    default = beside if records.is_file() else records / "report"

    def action() -> int:
        from casl_bench.analysis.controls import check_bounds
        from casl_bench.report.html.pages import Source, write_report

        source = Source.read(records)
        click.echo(str(write_report(source, out or default)))
        check_bounds(source.records, records)
        return 0

    return action
