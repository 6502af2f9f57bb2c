"""`casl-bench analyse` and `rescore`: numbers of finished runs made anew, without a U-Net pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import LocalFolder

_PATH = click.Path(path_type=Path, exists=True)


@click.command("analyse")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=_PATH)
@click.option("--metric", "metrics", type=click.Path(path_type=Path), multiple=True,
              help="A Python file that registers metrics. May be given several times.")  # fmt: skip
@click.option("--out", type=LocalFolder(path_type=Path), help="Folder for table.md and "
              "numbers.jsonl.  [default: RUN, where a single run folder is given]")  # fmt: skip
@click.option("--publish", "scores", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the scores of the run folders into one small file that can be analysed "
              "in their place; its name ends with .scores.npz.")  # fmt: skip
def analyse_command(
    runs: tuple[Path, ...], metrics: tuple[Path, ...], out: Path | None, scores: Path | None
) -> Callable[[], int]:
    """Compute all tables of RUN anew from its stored scores; of several, as one comparison.

    RUN is a run folder or a file of published scores or numbers. Every method that is complete in
    what is given is ranked. A metric given with --metric becomes a column of the tables.
    """

    def action() -> int:
        from casl_bench.analysis.analyse import publish, read_numbers, write_numbers
        from casl_bench.analysis.controls import check_bounds
        from casl_bench.core.files import write_text
        from casl_bench.core.registry import discover, load_plugin
        from casl_bench.metrics.metric import METRICS
        from casl_bench.report.tables import render_tables
        from casl_bench.results.published_scores import ENDING

        discover("casl_bench.metrics", METRICS)
        for path in metrics:
            load_plugin(path)
        if scores is not None and not scores.name.endswith(ENDING):
            raise UsageError(f"a file of scores ends with {ENDING}", where="--publish")
        numbers = read_numbers(runs) if scores is None else publish(runs, scores)
        if not numbers:
            raise UsageError("no records", where=str(runs[0]), hint="give the folder of a run")
        check_bounds(numbers, runs[0])
        table = render_tables(numbers)
        target = out or (runs[0] if len(runs) == 1 and runs[0].is_dir() else None)
        if target is not None:
            write_numbers(target, numbers)
            write_text(target / "table.md", table)
        click.echo(table, nl=False)
        return 0

    return action


@click.command("rescore")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--plugin", "plugins", type=click.Path(path_type=Path), multiple=True,
              help="As for the run.")  # fmt: skip
def rescore_command(run: Path, plugins: tuple[Path, ...]) -> Callable[[], int]:
    """Score the stored pictures of RUN again, by today's scorers; no image is edited.

    Strengths stay as they were chosen. Tables are then made anew, as by `analyse`.
    """

    def action() -> int:
        from casl_bench.runs.preflight import check_torch

        check_torch()
        from casl_bench.analysis.analyse import analyse, write_numbers
        from casl_bench.cli.report import report_run
        from casl_bench.runs.names import load_registries
        from casl_bench.runs.rescoring import rescore

        load_registries(plugins)
        click.echo(f"{rescore(run)} cells scored again", err=True)
        write_numbers(run, analyse([run]))
        report_run(run)
        return 0

    return action
