"""Runs a graph on an engine: a node is begun as soon as what it needs is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from casl_bench.runs.execution.attempts import Attempts
from casl_bench.runs.execution.engine import Engine, Outcome
from casl_bench.runs.execution.graph import Node

DEATHS = 3
"""A node whose processes die so often before any cell of it has begun is given up."""


def drive(nodes: Sequence[Node], engine: Engine, attempts: Attempts) -> Iterator[Outcome]:
    """Carry out a graph.

    A node whose process died is begun again: what is on disk by then is not made twice, and a cell
    that its processes die of is left out by the next one, see `Attempts.fault`. A node that is
    given up, and what needs it, is not heard of.

    Args:
        nodes: the graph, what should come first in front.
        engine: carries nodes out.
        attempts: what was begun and not ended.

    Raises:
        BenchError: as a node raises it.
    """
    waiting = _Waiting(nodes)
    deaths = _Deaths(attempts)
    at_work = 0
    while True:
        while engine.free and (node := waiting.take(engine.warm)) is not None:
            engine.submit(node)
            at_work += 1
        if not at_work:
            return
        outcome = engine.next()
        at_work -= 1
        if not outcome.died:
            waiting.done(outcome.node)
        elif deaths.may_begin_again(outcome.node):
            waiting.put_back(outcome.node)
        yield outcome


class _Waiting:
    """Nodes that are still to be begun, in the graph's order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._unmet = {node.name: set(node.needs) for node in nodes}
        self._place = {node.name: i for i, node in enumerate(nodes)}

    def take(self, warm: Collection[str]) -> Node | None:
        """The first node whose needs are met, of these data sets if there is one."""
        ready = [node for name, node in self._nodes.items() if not self._unmet[name]]
        if not ready:
            return None
        node = min(ready, key=lambda n: (n.dataset not in warm, self._place[n.name]))
        return self._nodes.pop(node.name)

    def put_back(self, node: Node) -> None:
        """A node is to be begun again."""
        self._nodes[node.name] = node

    def done(self, node: Node) -> None:
        """What needed this node may begin."""
        for unmet in self._unmet.values():
            unmet.discard(node.name)


class _Deaths:
    """Tells deaths in a cell, which are counted there, from others."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._begun: dict[str, dict[str, int]] = {}
        self._idle: Counter[str] = Counter()

    def may_begin_again(self, node: Node) -> bool:
        """Whether a node whose process has just died is begun once more."""
        begun = {cell.key: self._attempts.count(cell.key) for cell in node.cells}
        before = self._begun.get(node.name, {})
        self._begun[node.name] = begun
        if any(count > before.get(key, 0) for key, count in begun.items()):
            return True
        self._idle[node.name] += 1
        return self._idle[node.name] < DEATHS
