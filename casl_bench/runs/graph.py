"""A plan as a graph: what may run beside what, and what waits for what.

A node is a stretch of work that one process does without a word from the others. It may be done
again at any time: what lies on disk by then is not made twice. It waits for what it reads and for
nothing else: cells of one data set never wait for another's, save for a method's first cell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from casl_bench.cache.code_hash import RECORD_CODE, code_hash
from casl_bench.core.errors import UsageError
from casl_bench.core.files import write_json
from casl_bench.domains.dataset import Split
from casl_bench.results.provenance import git_state
from casl_bench.runs.plan import Cell, info_of, null_work
from casl_bench.runs.progress import PhaseCost
from casl_bench.runs.run_lock import PLAN_FILE
from casl_bench.runs.suites import RunConfig, Shard, Suite

Kind = Literal["inversions", "sae", "judged", "null", "controls", "entrant", "last"]
SHARED: frozenset[Kind] = frozenset({"inversions", "sae"})
"""Kinds that only make what others read: they lie in the cache and are made on first use too."""


@dataclass(frozen=True)
class Node:
    """One stretch of work.

    Attributes:
        kind: a split's inversions; the SAE; scorers and reconstruction on trial; the
            random directions; a concept's controls that stand alone; a method on a concept, with
            the controls matched to it; what comes last.
        dataset: its name.
        part: of inversions the split, of cells the concept.
        method: of "entrant".
        cells: of the plan, in its order.
        needs: names of nodes that must be done before.
        work: estimated U-Net calls, in images.
        gate: a cell without whose success these are not run.
    """

    kind: Kind
    dataset: str
    part: str = ""
    method: str = ""
    cells: tuple[Cell, ...] = ()
    needs: tuple[str, ...] = ()
    work: float = 0.0
    gate: Cell | None = None

    @property
    def name(self) -> str:
        """Unique within a graph."""
        return "/".join((self.dataset, self.kind, self.part, self.method))

    @property
    def label(self) -> str:
        """As shown to the user."""
        return " / ".join(filter(None, (self.dataset, self.part, self.method or self.kind)))

    @property
    def uses_sae(self) -> bool:
        """Whether a cell of it reads the SAE. Such an entrant may have a probe to be made."""
        return any(info_of(c.method).uses_sae for c in self.cells)


def make_nodes(
    config: RunConfig, cells: Sequence[Cell], resolutions: Mapping[str, int]
) -> tuple[Node, ...]:
    """The graph of a plan, in an order in which it can be run.

    Args:
        config: the run.
        cells: its plan.
        resolutions: data set → pixels a side: the smallest comes first, where faults show soonest.
    """
    datasets = dict.fromkeys(cell.dataset for cell in cells)
    nodes: list[Node] = []
    for dataset in sorted(datasets, key=lambda name: resolutions[name]):
        nodes += _of_dataset(config.suite, [c for c in cells if c.dataset == dataset])
    return tuple(nodes)


def _of_dataset(suite: Suite, cells: Sequence[Cell]) -> list[Node]:
    dataset = cells[0].dataset
    images: dict[Split, int] = {
        "train": suite.train_images,
        "validation": suite.validation_pool_images,
        "test": suite.test_pool_images,
    }
    passes = (2 + suite.refinements) * suite.num_steps
    inversions = {
        split: Node("inversions", dataset, split, work=float(passes * count))
        for split, count in images.items()
    }
    sae = Node("sae", dataset, needs=(inversions["train"].name,))
    judged = Node("judged", dataset, needs=tuple(n.name for n in inversions.values()))
    null = Node("null", dataset, needs=(judged.name,), work=null_work(suite))
    shared = [*inversions.values(), judged, null]
    if not any(info_of(c.method).uses_sae for c in cells):
        return [*shared, *_of_concepts(cells, judged, sae)]
    last = Node("last", dataset, needs=(sae.name, judged.name))
    return [*shared, sae, *_of_concepts(cells, judged, sae), last]


def _of_concepts(cells: Sequence[Cell], judged: Node, sae: Node) -> Iterable[Node]:
    for concept in dict.fromkeys(c.concept.name for c in cells):
        own = [c for c in cells if c.concept.name == concept]
        alone = [c for c in own if c.control and c.beside is None]
        if alone:
            yield _node("controls", alone, judged, sae)
        for method in dict.fromkeys(c.method for c in own if not c.control):
            entrant = [c for c in own if method in (c.method, c.beside)]
            yield _node("entrant", entrant, judged, sae, method)


def _node(kind: Kind, cells: Sequence[Cell], before: Node, sae: Node, method: str = "") -> Node:
    """Of one concept; the SAE is waited for only where it is read."""
    first = cells[0]
    work = sum(c.work for c in cells)
    node = Node(kind, first.dataset, first.concept.name, method, tuple(cells), (before.name,), work)
    return replace(node, needs=(before.name, sae.name)) if node.uses_sae else node


def pending(nodes: Sequence[Node], done: Collection[str]) -> tuple[Node, ...]:
    """The nodes with something left to do, and what these share.

    Records of a whole data set stay: whether they are there is quickly asked where they are made.

    Args:
        nodes: a graph.
        done: keys of the cells that are done.
    """
    left = [
        n
        for n in nodes
        if any(c.key not in done for c in n.cells)
        or (n.method and n.uses_sae)  # a finished cell may still lack its probe
    ]
    names, datasets = {n.name for n in left}, {n.dataset for n in left}
    read = {name for n in left for name in n.needs}
    kept = [
        n
        for n in nodes
        if n.name in names
        or n.kind in ("judged", "null", "last")
        or (n.kind == "inversions" and n.dataset in datasets)
        or (n.kind == "sae" and n.name in read)
    ]
    return _cut(kept)


def without_shared(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The graph for one process: what is shared is made where the first node reads it."""
    return _cut([n for n in nodes if n.kind not in SHARED])


def with_smoke(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The graph in which each method's first cell goes before its others, and decides on them."""
    first: dict[str, Node] = {}
    gated = []
    for node in nodes:
        smoke = first.setdefault(node.method, node)
        if node.method and node is not smoke:
            own = next(c for c in smoke.cells if c.method == node.method and not c.fit_seed)
            node = replace(node, needs=(*node.needs, smoke.name), gate=own)
        gated.append(node)
    return tuple(gated)


def _cut(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Without needs that are no longer among the nodes: these are done."""
    names = {n.name for n in nodes}
    return tuple(replace(n, needs=tuple(x for x in n.needs if x in names)) for n in nodes)


# Whoever carries out nodes: what this process, several, and a cluster have in common.


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


# Equal parts of a plan for job arrays that know nothing of each other.


_VERSION = 1
_LEFT_OUT = frozenset({"inputs", "sources"})
"""Of a cell: it is told by the rest, and once for all cells."""

_UNIT = 1.0
"""Added to a node's estimated work: nothing is done for nothing."""


def owned_by(nodes: Sequence[Node], count: int) -> dict[str, int]:
    """Name of every node with cells, and of what comes last → which part it belongs to, from 1.

    The same everywhere: it depends on the plan alone. No part has more than an equal share of the
    work and one node over.
    """
    own = [n for n in nodes if n.cells or n.kind in ("null", "last")]
    total = sum(n.work + _UNIT for n in own)
    parts, before = {}, 0.0
    for node in own:
        weight = node.work + _UNIT
        middle = (before + weight / 2) / total
        parts[node.name] = min(int(middle * count), count - 1) + 1
        before += weight
    return parts


def part_of(nodes: Sequence[Node], shard: Shard) -> tuple[Node, ...]:
    """The nodes of one part, with all that they need, in the graph's order."""
    by_name = {n.name: n for n in nodes}
    parts = owned_by(nodes, shard.count)
    wanted = [name for name, part in parts.items() if part == shard.index]
    taken: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in taken:
            taken.add(name)
            wanted += by_name[name].needs
    return tuple(n for n in nodes if n.name in taken)


def write_plan(config: RunConfig, cells: Sequence[Cell]) -> Path:
    """Keep the whole plan beside a part's records, for whoever joins them."""
    path = config.out / PLAN_FILE
    write_json(path, {"schema_version": _VERSION, "shard": str(config.execution.shard),
                      "plan": plan_json(config, cells)})  # fmt: skip
    return path


def plan_json(config: RunConfig, cells: Sequence[Cell]) -> dict[str, Any]:
    """All that a comparison of the whole run must know, and whose code it is, as JSON values."""
    commit, _ = git_state(Path(__file__).parent)
    return {
        "commit": commit,
        "code": code_hash(RECORD_CODE),
        "key": config.key(),
        "methods": list(config.methods),
        "datasets": list(config.datasets),
        "concepts": None if config.concepts is None else list(config.concepts),
        "fit_seeds": config.fit_seeds,
        "device": config.device,
        "sources": {name: source for c in cells for name, source in c.sources.items()},
        "cells": [{k: v for k, v in asdict(c).items() if k not in _LEFT_OUT} for c in cells],
    }
