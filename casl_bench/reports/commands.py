"""What is printed and drawn of a run folder: by its run, by `table` and by `picture`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.core.amounts import Count
from casl_bench.core.errors import UsageError


def report_run(out: Path) -> None:
    """Write and print the table of a run folder; draw its pictures.

    Args:
        out: the run folder; nothing is written where it holds no record.
    """
    from casl_bench.core.files import write_text
    from casl_bench.records.record_store import RecordStore
    from casl_bench.reports.pictures import write_pictures
    from casl_bench.reports.table import render_tables

    store = RecordStore(out)
    records = list(store)
    if records:
        table = render_tables(records)
        write_text(out / "table.md", table)
        write_pictures(store, records)
        click.echo(table, nl=False)


@click.command("table")
@click.argument("where", metavar="RECORDS", type=click.Path(path_type=Path, exists=True))
def table_command(where: Path) -> Callable[[], int]:
    """Print the table of RECORDS, a run folder or a records.jsonl, made anew."""

    def action() -> int:
        from casl_bench.comparison.controls import check_bounds
        from casl_bench.records.jsonl import read_jsonl
        from casl_bench.records.record_store import RecordStore
        from casl_bench.reports.table import render_tables

        records = read_jsonl(where) if where.is_file() else list(RecordStore(where))
        if not records:
            raise UsageError(
                "no records", where=str(where), mend="give a run folder or a records.jsonl"
            )
        check_bounds(records, where)
        click.echo(render_tables(records), nl=False)
        return 0

    return action


@click.command("picture")
@click.argument("run_folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--concepts", default="", metavar="NAMES", help="Which.  [default: all]")
@click.option("--image", type=Count(0), default=0, help="Place of the test image.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG file to write.")
def picture_command(run_folder: Path, concepts: str, image: int, out: Path) -> Callable[[], int]:
    """Draw one test image a concept and method: source, reconstruction, edits, oracle."""
    names = concepts.replace(",", " ").split()

    def action() -> int:
        from casl_bench.records.record_store import RecordStore
        from casl_bench.reports.pictures import write_overview

        write_overview(RecordStore(run_folder), names, image, out)
        return 0

    return action
