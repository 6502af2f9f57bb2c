"""What is made of finished runs: merged, analysed, scored again; tables, pictures and reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from casl_bench.cli.options import PATH, deferred
from casl_bench.core.command import EXIT_INCOMPLETE, say, show
from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import LocalPath

if TYPE_CHECKING:
    pass

_PATH = LocalPath(exists=True)
_RUN = LocalPath(exists=True, file_okay=False)


def report_run(out: Path) -> None:
    """Write tables and pictures of an analysed run folder, if any; print the summary."""
    from casl_bench.report.run_report import write_run_report

    show(write_run_report(out))


@click.command("analyse")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=_PATH)
@click.option("--metric", "metrics", type=PATH, multiple=True,
              help="A Python file that registers metrics. May be given several times.")  # fmt: skip
@click.option("--out", type=PATH, help="Folder for table.md and "
              "numbers.jsonl.  [default: RUN, where a single run folder is given]")  # fmt: skip
@click.option("--publish", "scores", type=PATH, metavar="FILE",
              help="Write the scores of the run folders into one small file that can be analysed "
              "in their place; its name ends with .scores.npz.")  # fmt: skip
@deferred
def analyse_command(
    runs: tuple[Path, ...], metrics: tuple[Path, ...], out: Path | None, scores: Path | None
) -> int | str:
    """Compute all tables of RUN anew from its stored scores; of several, as one comparison.

    RUN is a run folder or a file of published scores or numbers. Every method that is complete in
    what is given is ranked. A metric given with --metric becomes a column of the tables.
    """
    from casl_bench.analysis.analyse import NUMBERS_FILE, publish, read_numbers
    from casl_bench.analysis.controls import check_bounds
    from casl_bench.core.registry import discover, load_plugin
    from casl_bench.metrics.metric import METRICS
    from casl_bench.report.run_report import write_tables
    from casl_bench.report.tables import render_tables
    from casl_bench.results.published_scores import ENDING
    from casl_bench.results.run_folder import write_jsonl

    discover("casl_bench.metrics", METRICS)
    for path in metrics:
        load_plugin(path)
    if scores is not None and not scores.name.endswith(ENDING):
        raise UsageError(f"a file of scores ends with {ENDING}", where="--publish")
    numbers = read_numbers(runs) if scores is None else publish(runs, scores)
    if not numbers:
        raise UsageError("no records", where=str(runs[0]), hint="give the folder of a run")
    check_bounds(numbers, runs[0])
    target = out or (runs[0] if len(runs) == 1 and runs[0].is_dir() else None)
    if target is None:
        return render_tables(numbers)
    write_jsonl(target / NUMBERS_FILE, numbers)
    show(write_tables(target, numbers))
    return 0


@click.command("rescore")
@click.argument("run", metavar="RUN", type=_RUN)
@click.option("--plugin", "plugins", type=PATH, multiple=True,
              help="As for the run.")  # fmt: skip
@deferred
def rescore_command(run: Path, plugins: tuple[Path, ...]) -> int:
    """Score the stored pictures of RUN again, by today's scorers; no image is edited.

    Strengths stay as they were chosen. Tables are then made anew, as by `analyse`.
    """
    from casl_bench.runs.system_info import check_torch

    check_torch()
    from casl_bench.runs.merge import analyse_run
    from casl_bench.runs.names import load_registries
    from casl_bench.runs.rescoring import rescore

    load_registries(plugins)
    say(f"{rescore(run)} cells scored again")
    analyse_run(run)
    report_run(run)
    return 0


@click.command("merge")
@click.argument("out", type=PATH)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PATH)
@deferred
def merge_command(out: Path, runs: tuple[Path, ...]) -> int:
    """Copy the cells of run folders, such as shards, into OUT: docs/scaling.md."""
    from casl_bench.runs.merge import merge

    merged = merge(out, runs)
    report_run(out)
    say(f"{merged.text}; {out}")
    return EXIT_INCOMPLETE if merged.failed else 0


@click.command("table")
@click.argument("where", metavar="RECORDS", type=_PATH)
@click.option("--short", is_flag=True, help="Who is first, on one screen, as at a run's end.")
@deferred
def table_command(where: Path, short: bool) -> str:
    """Print the table of RECORDS, a run folder or a file of numbers, made anew."""
    from casl_bench.analysis.analyse import read_numbers
    from casl_bench.analysis.controls import check_bounds
    from casl_bench.report.run_report import summary_text
    from casl_bench.report.tables import render_tables

    records = read_numbers(where)
    check_bounds(records, where)
    return summary_text(records) if short else render_tables(records)


@click.command("picture")
@click.argument("run_folder", type=_RUN)
@click.option("--concepts", default="", metavar="NAMES", help="Which.  [default: the first "
              "three of each data set]")  # fmt: skip
@click.option("--methods", default="", metavar="NAMES", help="Which, in this order.  [default: "
              "all, the most precise first]")  # fmt: skip
@click.option("--out", type=PATH, required=True, help="PNG file to write.")
@deferred
def picture_command(run_folder: Path, concepts: str, methods: str, out: Path) -> int:
    """Draw edits, a row per method: source, reconstruction, levels of effect, perfect edit.

    Of each concept the image whose credit in precise edits, meaned over methods, is the median.
    """
    from casl_bench.report.pictures import write_edits

    names, rows = (given.replace(",", " ").split() for given in (concepts, methods))
    write_edits(run_folder, out, names, rows)
    return 0


@click.command("report")
@click.argument("records", metavar="RUN", type=_PATH)
@click.option("--out", type=PATH, help="Folder of the report; an older one "
              "in it is replaced.  [default: RUN/report, or FILE-report]")  # fmt: skip
@deferred
def report_command(records: Path, out: Path | None) -> int:
    """Write a report of RUN, a run folder or a file of numbers, that opens in a browser from disk.

    From a file of records alone there are no pictures. Exit code 5, with the report written but
    without a ranking, where a control is out of its bounds.
    """
    from casl_bench.analysis.controls import check_bounds
    from casl_bench.report.html.pages import Source, write_report

    beside = records.with_name(f"{records.stem}-report")
    default = beside if records.is_file() else records / "report"
    source = Source.read(records)
    show(str(write_report(source, out or default)))
    check_bounds(source.records, records)
    return 0
