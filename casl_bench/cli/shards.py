"""`casl-bench merge OUT SHARD...`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.core.option_types import LocalFolder

EXIT_INCOMPLETE = 3
_PATH = click.Path(path_type=Path)
_OUT = LocalFolder(path_type=Path)


def make_merge_command(report: Callable[[Path], None]) -> click.Command:
    """The command.

    Args:
        report: writes tables and pictures of a run folder: runs know nothing of these.
    """

    @click.command("merge")
    @click.argument("out", type=_OUT)
    @click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
    @click.option("--plugin", "plugins", type=_PATH, multiple=True, help="As for the run.")
    def merge_command(
        out: Path, shards: tuple[str, ...], plugins: tuple[Path, ...]
    ) -> Callable[[], int]:
        """Put run folders made with --shard together in OUT: docs/scaling.md.

        A SHARD is a folder, or an address that casl-bench push has copied one to.
        """

        def action() -> int:
            from casl_bench.runs.merge import merge
            from casl_bench.runs.names import load_entrants

            load_entrants(plugins)
            merged = merge(out, shards)
            report(out)
            click.echo(f"{merged.text}; {out}", err=True)
            return EXIT_INCOMPLETE if merged.missing else 0

        return action

    return merge_command
