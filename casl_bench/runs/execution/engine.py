"""Whoever carries out nodes: what this process, several, and a cluster have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

from casl_bench.core.errors import UsageError
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.watching.phase_costs import PhaseCost


@dataclass(frozen=True)
class Outcome:
    """What is heard of a node. It is a hint: what counts are the records on disk.

    Attributes:
        node: the node.
        notes: lines to be said.
        costs: what its phases have cost another process.
        died: whether its process died.
    """

    node: Node
    notes: tuple[str, ...] = ()
    costs: Mapping[str, PhaseCost] = field(default_factory=dict)
    died: bool = False


class Engine(Protocol):
    """Takes nodes whose needs are met and says when they are over."""

    @property
    def free(self) -> bool:
        """Whether a node that is given now would begin now."""

    @property
    def warm(self) -> Collection[str]:
        """Data sets whose world is open where the next node would go."""

    def submit(self, node: Node) -> None:
        """Begin a node."""

    def next(self) -> Outcome:
        """Wait for one of the nodes that were begun.

        Raises:
            BenchError: as a node raises it: the run ends.
        """

    def close(self, *, kill: bool) -> None:
        """Let go of all processes; with `kill`, of those at work too."""


def check_engine(config: RunConfig) -> None:
    """Refuse an engine that is not installed, before anything is opened.

    Raises:
        UsageError: with what to install.
    """
    config.execution.check(config.jobs)
    if config.execution.engine(config.jobs) == "dask" and find_spec("distributed") is None:
        raise UsageError(
            "--executor dask needs the package 'distributed'",
            mend="pip install 'casl-bench[cluster]', or use --executor local",
        )
    if config.execution.queue is not None and find_spec("dask_jobqueue") is None:
        raise UsageError(
            "--queue needs the package 'dask-jobqueue'", mend="pip install 'casl-bench[cluster]'"
        )
