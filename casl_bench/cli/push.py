"""`casl-bench push RUN ADDRESS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


@click.command("push")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("address")
def push_command(run: Path, address: str) -> Callable[[], int]:
    """Copy the results in RUN to ADDRESS, such as s3://bucket/run: docs/scaling.md."""

    def action() -> int:
        from casl_bench.runs.published import publish

        copied = publish(run, address)
        said = f"{copied} files copied" if copied else "all of it is there already"
        click.echo(f"{said}: {address}", err=True)
        return 0

    return action
