"""`casl-bench merge OUT SHARD...`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.cli.errors import EXIT_INCOMPLETE
from casl_bench.cli.options import plugin_option
from casl_bench.cli.report import report_run
from casl_bench.core.option_types import LocalFolder


@click.command("merge")
@click.argument("out", type=LocalFolder(path_type=Path))
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
@plugin_option
def merge_command(
    out: Path, shards: tuple[str, ...], plugins: tuple[Path, ...]
) -> Callable[[], int]:
    """Put run folders made with --shard together in OUT: docs/scaling.md."""

    def action() -> int:
        from casl_bench.runs.merge import merge
        from casl_bench.runs.names import load_entrants

        load_entrants(plugins)
        merged = merge(out, shards)
        report_run(out)
        click.echo(f"{merged.text}; {out}", err=True)
        return EXIT_INCOMPLETE if merged.missing else 0

    return action
