"""Command-line options of how a run is carried out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from casl_bench.core.option_types import Amount
from casl_bench.runs.suites import (
    LONGEST_CELL,
    SHORTEST_CELL,
    Execution,
    ExecutorName,
    QueueName,
    Shard,
)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--executor", type=click.Choice(get_args(ExecutorName)), help="Who runs the cells: this "
        "process, several (--jobs), or a Dask cluster.  [default: local, or serial with one job]",
    ),
    click.option("--scheduler", metavar="ADDRESS",
                 help="With Dask: a scheduler that runs, by address or scheduler file."),
    click.option("--queue", type=click.Choice(get_args(QueueName)), help="With Dask: ask this "
                 "batch queue for --jobs workers, by dask-jobqueue."),
    click.option("--cell-timeout", type=Amount(SHORTEST_CELL, LONGEST_CELL), metavar="SECONDS",
                 help="End a cell after so long: it counts as failed, the rest goes on."),
    click.option("--smoke/--no-smoke", default=True, show_default=True,
                 help="Leave a method out once its first cell fails."),
    click.option("--shard", metavar="I/N",
                 help="Run the I-th of N equal parts alone; `casl-bench merge` joins them."),
)  # fmt: skip
_NAMES = ("executor", "scheduler", "queue", "cell_timeout", "smoke", "shard")


def execution_options(command: Decorated) -> Decorated:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pop_execution(given: dict[str, Any], jobs: int) -> Execution:
    """Take the options' values out of those of a command.

    Raises:
        UsageError: on values that contradict each other.
    """
    values = {name: given.pop(name) for name in _NAMES}
    if values["shard"] is not None:
        values["shard"] = Shard.parse(values["shard"])
    execution = Execution(**values)
    execution.check(jobs)
    return execution


# Command-line options of the real world, for every command that opens one.


_PATH = click.Path(path_type=Path)
_PHOTO_OPTIONS = (
    click.option("--data-root", type=_PATH, envvar="CASL_BENCH_DATA", show_envvar=True,
                 help="Real data: folder of a data set, or of several by name."),
    click.option("--data-id", metavar="ID",
                 help="Real data from a `datasets` id instead of a folder."),
    click.option("--weights-root", type=_PATH, envvar="CASL_BENCH_WEIGHTS", show_envvar=True,
                 help="Where weights are looked for: see `casl-bench weights`."),
    click.option("--backbone", multiple=True, metavar="[DATASET=]PLACE",
                 help="Backbone: a folder, a checkpoint or a Hub id."),
    click.option("--guide-clip", metavar="ARCH:TAG|FILE", help="CLIP that methods train against."),
    click.option("--score-clip", metavar="ARCH:TAG|FILE", help="CLIP that scores."),
    click.option("--zero-shot-clip", metavar="ARCH:TAG|FILE",
                 help="CLIP that judges attributes of data sets without labels."),
    click.option("--classifier", "classifiers", type=_PATH, multiple=True,
                 help="Attribute classifier, the primary one first."),
    click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error",
                 show_default=True, help="Stop at an unusable image, or leave it out, counted."),
    click.option("--allow-download", is_flag=True, help="Ask the Hub for what is not here."),
    click.option("--method-weights", multiple=True, metavar="METHOD=FOLDER",
                 help="Run a method on weights that are already trained."),
)  # fmt: skip


def real_options(command: Decorated) -> Decorated:
    """Add the options to a command."""
    for option in reversed(_PHOTO_OPTIONS):
        command = option(command)
    return command
