"""`casl-bench merge OUT RUN...`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.core.option_types import LocalFolder

EXIT_INCOMPLETE = 3
_OUT = LocalFolder(path_type=Path)


def make_merge_command(report: Callable[[Path], None]) -> click.Command:
    """The command.

    Args:
        report: writes tables and pictures of a run folder: runs know nothing of these.
    """

    @click.command("merge")
    @click.argument("out", type=_OUT)
    @click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=_OUT)
    def merge_command(out: Path, runs: tuple[Path, ...]) -> Callable[[], int]:
        """Copy the cells of run folders, such as shards, into OUT: docs/scaling.md."""

        def action() -> int:
            from casl_bench.runs.merge import merge

            merged = merge(out, runs)
            report(out)
            click.echo(f"{merged.text}; {out}", err=True)
            return EXIT_INCOMPLETE if merged.failed else 0

        return action

    return merge_command
