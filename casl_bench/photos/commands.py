"""`casl-bench weights`, and what `casl-bench doctor` says of photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from casl_bench.core.option_types import LocalPath


@click.command("weights")
@click.option("--weights-root", type=LocalPath(), envvar="CASL_BENCH_WEIGHTS",
              show_envvar=True)  # fmt: skip
def weights_command(weights_root: Path | None) -> Callable[[], str]:
    """Print every weights file of photographs: where from, where to, whether it is there."""

    def action() -> str:
        from casl_bench.domains.options import default_weights_root
        from casl_bench.photos.published_weights import weights_text

        return weights_text(weights_root or default_weights_root())

    return action


def what_is_here(data_root: Path | None, weights_root: Path) -> Iterator[tuple[str, str]]:
    """Data and weights of photographs on this machine, as rows of `casl-bench doctor`."""
    from casl_bench.photos.published_weights import REAL_DATASETS, WEIGHTS, found_at

    yield "data", str(data_root) if data_root else "no folder given (--data-root)"
    yield "weights", f"{weights_root}; see `casl-bench weights`"
    for dataset in REAL_DATASETS:
        needed = [w for w in WEIGHTS if dataset in w.datasets]
        there = sum(found_at(weights_root, w.place) is not None for w in needed)
        folder = data_root is not None and (data_root / dataset).is_dir()
        data = "a folder of data" if folder else "no folder of data"
        yield dataset, f"{data}, {there} of {len(needed)} weights"
