"""`casl-bench report RUN`: what draws pages and figures is imported once it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.cache.commands import cache_option


@click.command("report")
@click.argument("records", metavar="RUN", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report; an older one "
              "in it is replaced.  [default: RUN/report, or FILE-report]")  # fmt: skip
@cache_option
def report_command(records: Path, out: Path | None, cache: Path | None) -> Callable[[], int]:
    """Write a report of RUN, a run folder or a records.jsonl, that opens in a browser from disk.

    From a file of records alone there are no pictures. Exit code 5, with the report written but
    without a ranking, where a control is out of its bounds.
    """
    beside = records.with_name(f"{records.stem}-report")
    default = beside if records.is_file() else records / "report"

    def action() -> int:
        from casl_bench.comparison.controls import check_bounds
        from casl_bench.html_report.build import write_report
        from casl_bench.html_report.inputs import Source

        source = Source.read(records, cache)
        click.echo(str(write_report(source, out or default)))
        check_bounds(source.records, records)
        return 0

    return action
