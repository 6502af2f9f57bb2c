"""A plan as a graph: what may run beside what, and what waits for what.

A node is a stretch of work that one process does without a word from the others. It may be done
again at any time: what lies on disk by then is not made twice. It waits for what it reads and for
nothing else: cells of one data set never wait for another's, save for a method's first cell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from casl_bench.images.dataset import Split
from casl_bench.runs.planning.config import RunConfig, Suite
from casl_bench.runs.planning.plan import Cell, info_of

Kind = Literal["inversions", "sae", "judged", "draws", "controls", "entrant", "last"]
SHARED: frozenset[Kind] = frozenset({"inversions", "sae"})
"""Kinds that only make what others read: they lie in the cache and are made on first use too."""


@dataclass(frozen=True)
class Node:
    """One stretch of work.

    Attributes:
        kind: a split's inversions; the SAE; scorers and reconstruction on trial; a concept's random
            draws; its other controls that stand alone; an entrant on a concept, with what stands
            beside it; what comes last.
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
    shared = [*inversions.values(), judged]
    if not any(info_of(c.method).uses_sae for c in cells):
        return [*shared, *_of_concepts(cells, judged, sae)]
    last = Node("last", dataset, needs=(sae.name, judged.name))
    return [*shared, sae, *_of_concepts(cells, judged, sae), last]


def _of_concepts(cells: Sequence[Cell], judged: Node, sae: Node) -> Iterable[Node]:
    for concept in dict.fromkeys(c.concept.name for c in cells):
        own = [c for c in cells if c.concept.name == concept]
        alone = [c for c in own if c.control and c.beside is None]
        before = judged
        if draws := [c for c in alone if info_of(c.method).draws]:
            before = _node("draws", draws, judged, sae)
            yield before
        if rest := [c for c in alone if not info_of(c.method).draws]:
            yield _node("controls", rest, before, sae)
        for method in dict.fromkeys(c.method for c in own if not c.control):
            entrant = [c for c in own if method in (c.method, c.beside)]
            yield _node("entrant", entrant, before, sae, method)


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
        or n.kind in ("judged", "last")
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
