"""What is on this machine: `casl-bench doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.cli.options import PATH, cache_option


@click.command("doctor")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 … or mps.")
@cache_option
@click.option("--data-root", type=PATH, envvar="CASL_BENCH_DATA", show_envvar=True)
@click.option("--weights-root", type=PATH, envvar="CASL_BENCH_WEIGHTS", show_envvar=True)
def doctor_command(
    device: str,
    cache: Path | None,
    data_root: Path | None,
    weights_root: Path | None,
) -> Callable[[], int]:
    """Look at this machine: versions, devices, cache, data, weights, and what kernels pay here."""

    def action() -> int:
        from casl_bench.cache.store import default_cache
        from casl_bench.domains.options import default_weights_root
        from casl_bench.runs.system_info import doctor_page

        page, code = doctor_page(
            device,
            cache or default_cache(),
            data_root,
            weights_root or default_weights_root(),
        )
        click.echo(page, nl=False)
        return code

    return action
