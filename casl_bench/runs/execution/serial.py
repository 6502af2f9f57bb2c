"""Nodes one after another, in this process."""

from __future__ import annotations

from collections.abc import Collection

from casl_bench.runs.execution.engine import Outcome
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.execution.worker import Worker


class SerialEngine:
    """Carries out a node when its outcome is asked for.

    Args:
        worker: does it, and says what is to be said.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._node: Node | None = None

    @property
    def free(self) -> bool:
        """Whether no node waits."""
        return self._node is None

    @property
    def warm(self) -> Collection[str]:
        """Nothing is preferred: the graph's own order goes data set by data set."""
        return ()

    def submit(self, node: Node) -> None:
        """Keep the node for `next`."""
        self._node = node

    def next(self) -> Outcome:
        """Carry out the node."""
        node, self._node = self._node, None
        assert node is not None
        self._worker.do(node)
        return Outcome(node)

    def close(self, *, kill: bool) -> None:
        """There is nothing to let go of."""
