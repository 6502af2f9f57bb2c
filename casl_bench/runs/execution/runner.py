"""Runs a plan: as a graph, on the engine that was asked for, and then by what lies on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from casl_bench.comparison.controls import check_bounds
from casl_bench.core.files import make_folder
from casl_bench.records.damage import damaged_cells, set_aside
from casl_bench.records.record_store import RecordStore
from casl_bench.runs.cells.comparing import Comparing
from casl_bench.runs.execution.attempts import Attempts
from casl_bench.runs.execution.drive import drive
from casl_bench.runs.execution.engine import Engine, Outcome, check_engine
from casl_bench.runs.execution.graph import Node, make_nodes, pending, with_smoke, without_shared
from casl_bench.runs.execution.reconcile import reconcile
from casl_bench.runs.execution.serial import SerialEngine
from casl_bench.runs.execution.shards import part_of, write_plan
from casl_bench.runs.execution.worker import Worker
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.finished import standing
from casl_bench.runs.planning.judges import check_judges
from casl_bench.runs.planning.plan import (
    Cell,
    check_images,
    identify,
    open_worlds,
    plan,
    shared_work,
)
from casl_bench.runs.planning.sources import note_of_changed
from casl_bench.runs.shared_work.artefacts import Artefacts, check_room
from casl_bench.runs.watching.progress import Progress
from casl_bench.worlds.world import World

EXIT_DONE, EXIT_INCOMPLETE = 0, 3


def run(config: RunConfig, progress: Progress) -> int:
    """Run everything the config asks for that is not done yet.

    Records are written cell by cell; `records.jsonl` last. Damaged ones are set aside, which one
    line says, and made again. Of a shard, methods are not compared: that is for `casl-bench merge`.

    Returns:
        0 if every cell is done, 3 if some failed.

    Raises:
        UsageError: if the disk or its budget has no room for what would be made, a data set has
            too few images, or the engine is not to be had.
        InvalidBenchmarkError: if the benchmark itself cannot be trusted: a scorer under its floor,
            a control out of its bounds.
    """
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
    store.write_jsonl()
    check_bounds([r for r in store if r.dataset in worlds], config.out)
    if shard is None:
        Comparing(config, cells, store).write()
        store.write_jsonl()
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
    found = {key: standing(store, c) for key, c in cells.items()}
    to_do = {key: c for key, c in cells.items() if found[key].record is None or found[key].awaits}
    if edited := [x for x in found.values() if x.changed]:
        names = [name for x in edited for name in x.changed]
        progress.note(note_of_changed(names, f"{len(edited)} cell{'s' * (len(edited) > 1)}"))
    if to_do:
        check_room(config, [Artefacts(world, config, progress) for world in worlds.values()])
    shared = shared_work(config) if to_do else 0.0
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
        from casl_bench.runs.execution.local import LocalEngine

        return LocalEngine(config)
    if name == "dask":
        from casl_bench.runs.execution.dask_engine import DaskEngine

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
