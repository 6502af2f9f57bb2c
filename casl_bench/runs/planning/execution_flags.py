"""Command-line options of how a run is carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from casl_bench.core.amounts import Amount
from casl_bench.runs.planning.execution import (
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
        "process, several (--jobs), or a Dask cluster.  [default: serial; local with --jobs]",
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
