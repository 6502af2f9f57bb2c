"""Runs a plan: as a graph, on the engine that was asked for, and then by what lies on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext

from casl_bench.analysis.analyse import analyse, write_numbers
from casl_bench.analysis.controls import check_bounds
from casl_bench.core.files import make_folder
from casl_bench.domains.domain import World
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.run_folder import CellKey, RecordStore, damaged_cells, set_aside
from casl_bench.runs.artefacts import Artefacts, check_room
from casl_bench.runs.attempts import Attempts, CellDiedError
from casl_bench.runs.cell import without_result
from casl_bench.runs.graph import (
    Engine,
    Node,
    Outcome,
    check_engine,
    make_nodes,
    part_of,
    pending,
    with_smoke,
    without_shared,
    write_plan,
)
from casl_bench.runs.plan import (
    KEY_ARTEFACT,
    Cell,
    check_images,
    check_judges,
    done,
    edited_since,
    identify,
    note_of_changed,
    null_work,
    open_worlds,
    plan,
    shared_work,
)
from casl_bench.runs.progress import Progress
from casl_bench.runs.suites import RunConfig
from casl_bench.runs.worker import Worker

# Runs a graph on an engine: a node is begun as soon as what it needs is done.


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


# After the last word of all processes: what lies on disk decides, and no cell stays without word.


class UnrecordedError(RuntimeError):
    """A process said that the cell was over, and left no record where this one looks."""


def reconcile(
    config: RunConfig,
    worlds: Mapping[str, World],
    store: RecordStore,
    nodes: Sequence[Node],
    heard: Collection[str],
) -> bool:
    """Give every cell a record.

    Args:
        config: the run.
        worlds: data set → its world.
        store: the run's records.
        nodes: what was to be done.
        heard: names of the nodes that came to their end.

    Returns:
        Whether any cell or probe failed, or something that concerns a whole data set was not to be
        made.

    Raises:
        InvalidBenchmarkError: if a record is corrupt.
    """
    failed = False
    attempts = Attempts(config.out)
    for node in nodes:
        failed |= node.name not in heard and not node.cells
        for cell in node.cells:
            if done(store, cell) is not None:
                failed |= _has_failed(store, cell.probe_store_key)
                continue
            status = _status(store, cell)
            if status == "skipped" and node.name in heard:
                continue
            failed = True
            if status == "failed" and node.name in heard:
                continue
            error: Exception = UnrecordedError(
                "a worker said that it is over, but its record is not in this run folder: give "
                "--out on a folder that all machines share"
            )
            if node.name not in heard:
                error = attempts.fault(cell.key, config.execution.cell_timeout) or CellDiedError(
                    "not run: processes died before it began, its own or those that make what it "
                    "reads"
                )
            world = worlds[cell.dataset]
            store.write(without_result(world, config, cell, "failed", error))
    return failed


def _has_failed(store: RecordStore, place: CellKey) -> bool:
    record = store.find(place)
    return record is not None and record.status == "failed"


def _status(store: RecordStore, cell: Cell) -> str:
    """Of the record of this very cell; empty where there is none."""
    record = store.find(cell.store_key)
    own = record is not None and record.artefacts.get(KEY_ARTEFACT) == cell.key
    return record.status if own and record is not None else ""


# Nodes one after another, in this process.


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


EXIT_DONE, EXIT_INCOMPLETE = 0, 3


def run(config: RunConfig, progress: Progress) -> int:
    """Run everything the config asks for that is not done yet.

    Records are written cell by cell, and what they come to last, in `numbers.jsonl`. Damaged ones
    are set aside, which one line says, and made again.

    Returns:
        0 if every cell is done, 3 if some failed.

    Raises:
        UsageError: if the disk or its budget has no room for what would be made, a data set has
            too few images, or the engine is not to be had.
        InvalidBenchmarkError: if the benchmark itself cannot be trusted: a scorer under its floor,
            a control out of its bounds.
    """
    with one_thread():
        return _run(config, progress)


def _run(config: RunConfig, progress: Progress) -> int:
    check_engine(config)
    worlds = open_worlds(config)
    check_images(config, worlds)
    check_judges(config, worlds)
    cells = plan(config, identify(worlds))
    nodes = make_nodes(config, cells, {d: w.dataset.card.resolution for d, w in worlds.items()})
    shard = config.execution.shard
    if shard is not None:
        write_plan(config, cells)
        nodes = part_of(nodes, shard)
    store = RecordStore(config.out)
    if line := set_aside(config.out, damaged_cells(store)):
        progress.note(line)
    failed = _carry_out(config, worlds, store, nodes, progress)
    numbers = analyse([config.out])
    write_numbers(config.out, numbers)
    check_bounds([r for r in numbers if r.dataset in worlds], config.out)
    progress.note(progress.costs.text())
    return EXIT_INCOMPLETE if failed else EXIT_DONE


def _carry_out(
    config: RunConfig,
    worlds: Mapping[str, World],
    store: RecordStore,
    nodes: Sequence[Node],
    progress: Progress,
) -> bool:
    """Whether any cell failed."""
    cells = {c.key: c for node in nodes for c in node.cells}
    to_do = {key: c for key, c in cells.items() if done(store, c) is None}
    if edited := [names for c in to_do.values() if (names := edited_since(store, c))]:
        sources = [name for own in edited for name in own]
        progress.note(note_of_changed(sources, f"{len(edited)} cell{'s' * (len(edited) > 1)}"))
    if to_do:
        check_room(config, [Artefacts(world, config, progress) for world in worlds.values()])
    null = null_work(config.suite) * len(config.datasets)
    shared = shared_work(config) + null if to_do else 0.0
    progress.start(sum(c.work for c in to_do.values()) + shared)
    counted = _Counted(progress, shared)
    nodes = pending(nodes, cells.keys() - to_do.keys())
    # Where nothing is to do, no process is started to find that out.
    engine_name = config.execution.engine(config.jobs) if to_do else "serial"
    if engine_name == "serial":
        nodes = without_shared(nodes)
    if config.execution.smoke:
        nodes = with_smoke(nodes)
    heard: set[str] = set()
    alone = engine_name == "serial"
    # Other processes tell what they have spent; that this one waits for them costs nothing.
    with nullcontext() if alone else progress.costs.phase(None):
        for outcome in _outcomes(engine_name, config, worlds, nodes, progress):
            progress.costs.add(outcome.costs)
            for line in outcome.notes:
                progress.note(line)
            if outcome.died:
                progress.note(f"{outcome.node.label}: its process died")
                continue
            heard.add(outcome.node.name)
            for cell in outcome.node.cells:
                if cell.key in to_do:
                    counted.finished(cell)
            if not alone:
                with progress.task(f"{outcome.node.label}: done", 1):
                    pass
    failed = reconcile(config, worlds, store, nodes, heard)
    Attempts(config.out).tidy()
    return failed


def _outcomes(
    name: str,
    config: RunConfig,
    worlds: Mapping[str, World],
    nodes: Sequence[Node],
    progress: Progress,
) -> Iterator[Outcome]:
    """What the engine says; it is let go of whatever happens."""
    make_folder(config.out)  # a worker that does not see it is refused
    attempts = Attempts(config.out)
    attempts.clear()
    engine = _engine(name, config, worlds, progress)
    whole = False
    try:
        yield from drive(nodes, engine, attempts)
        whole = True
    finally:
        engine.close(kill=not whole)


def _engine(
    name: str, config: RunConfig, worlds: Mapping[str, World], progress: Progress
) -> Engine:
    """Engines are imported once they are asked for: Dask may not be there."""
    if name == "local":
        from casl_bench.runs.parallel import LocalEngine

        return LocalEngine(config)
    if name == "dask":
        from casl_bench.runs.parallel import DaskEngine

        return DaskEngine(config, progress.note)
    return SerialEngine(Worker(config, worlds.__getitem__, progress))


class _Counted:
    """Keeps the estimate of the time left honest: a finished cell counts what was planned for it.

    The tasks within a cell cannot know: a control beside a method fits that method first.
    """

    def __init__(self, progress: Progress, shared: float) -> None:
        self.progress, self.done = progress, shared

    def finished(self, cell: Cell) -> None:
        """One more cell is done."""
        self.done += cell.work
        self.progress.settle(self.done)
