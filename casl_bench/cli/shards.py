"""`casl-bench merge OUT RUN...`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.cli.errors import EXIT_INCOMPLETE, say
from casl_bench.cli.report import report_run
from casl_bench.core.option_types import LocalFolder

_FOLDER = LocalFolder(path_type=Path)


@click.command("merge")
@click.argument("out", type=_FOLDER)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=_FOLDER)
def merge_command(out: Path, runs: tuple[Path, ...]) -> Callable[[], int]:
    """Copy the cells of run folders, such as shards, into OUT: docs/scaling.md."""

    def action() -> int:
        from casl_bench.runs.merge import merge

        merged = merge(out, runs)
        report_run(out)
        say(f"{merged.text}; {out}")
        return EXIT_INCOMPLETE if merged.failed else 0

    return action
