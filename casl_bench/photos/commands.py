"""`casl-bench weights`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


@click.command("weights")
@click.option("--weights-root", type=click.Path(path_type=Path), envvar="CASL_BENCH_WEIGHTS",
              show_envvar=True)  # fmt: skip
def weights_command(weights_root: Path | None) -> Callable[[], int]:
    """Print every weights file of photographs: where from, where to, whether it is there."""

    def action() -> int:
        from casl_bench.domains.options import default_weights_root
        from casl_bench.photos.domains import weights_text

        click.echo(weights_text(weights_root or default_weights_root()), nl=False)
        return 0

    return action
