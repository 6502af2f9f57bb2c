"""Carries out nodes, in whatever process: opens a data set's world once and keeps it warm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

from casl_bench.core.errors import UsageError
from casl_bench.methods.method import METHODS
from casl_bench.records.record_store import RecordStore
from casl_bench.runs.cells.dataset_run import DatasetRun
from casl_bench.runs.execution.attempts import Attempts
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.finished import is_done
from casl_bench.runs.planning.plan import KEY_ARTEFACT, Cell, fingerprint
from casl_bench.runs.planning.sources import (
    sources_of_methods,
    sources_of_metrics,
    sources_of_world,
)
from casl_bench.runs.watching.progress import Progress
from casl_bench.worlds.world import World


class SmokeFailedError(RuntimeError):
    """The method's first cell has failed, so its others were not run."""


class Worker:
    """Carries out nodes one after another.

    Args:
        config: the run.
        open_world: data set → its world.
        progress: shown meanwhile.
        attempts: where cells are noted while they last; None where nobody would read it, since
            there is no other process.
    """

    def __init__(
        self,
        config: RunConfig,
        open_world: Callable[[str], World],
        progress: Progress,
        attempts: Attempts | None = None,
    ) -> None:
        self.config, self.attempts = config, attempts
        self.store = RecordStore(config.out)
        self._open_world, self._progress = open_world, progress
        self._warm: DatasetRun | None = None

    def hear(self, progress: Progress) -> None:
        """Show progress elsewhere from now on."""
        self._progress = progress
        if self._warm is not None:
            self._warm.hear(progress)

    def do(self, node: Node) -> None:
        """Carry out a node, less what is done already.

        Raises:
            InvalidBenchmarkError: as a data set or a cell raises it.
            UsageError: if what is here is not what the node was planned for.
        """
        run = self._run_of(node.dataset)
        if node.kind in ("inversions", "sae"):
            run.share(cast(Any, node.part or node.kind))
        elif node.kind == "judged":
            run.prepare()
        elif node.kind == "last":
            run.finish()
        else:
            _check_world(node.cells, run.world)
            for cell in node.cells:
                self._do_cell(run, node, cell)

    def _run_of(self, dataset: str) -> DatasetRun:
        if self._warm is None or self._warm.world.dataset.card.name != dataset:
            self._warm = None  # one world's models at a time
            world = self._open_world(dataset)
            self._warm = DatasetRun(world, self.config, self.store, self._progress)
        return self._warm

    def _do_cell(self, run: DatasetRun, node: Node, cell: Cell) -> None:
        limit = self.config.execution.cell_timeout
        fault: Exception | None = None
        if not is_done(self.store, cell):
            if (gate := self._closed(node)) is not None:
                run.fail(cell, gate, "skipped" if cell.beside else "failed")
                return
            fault = None if self.attempts is None else self.attempts.fault(cell.key, limit)
        if fault is not None:
            run.fail(cell, fault, "failed")
            self._progress.note(f"{cell.label} failed: {type(fault).__name__}: {fault}")
            return
        with (
            contextlib.nullcontext()
            if self.attempts is None
            else self.attempts.begun(cell.key, limit)
        ):
            run.run_cells([cell], lambda cell: None)

    def _closed(self, node: Node) -> SmokeFailedError | None:
        """What keeps a node from being run, of a method whose first cell has failed."""
        if node.gate is None:
            return None
        record = self.store.find(node.gate.store_key)
        if record is None or record.artefacts.get(KEY_ARTEFACT) != node.gate.key:
            return None
        if record.status != "failed" or record.error is None:
            return None
        return SmokeFailedError(
            f"not run, since '{node.gate.label}' of {node.gate.dataset} failed "
            f"({record.error.type}); --no-smoke runs it all the same"
        )


def _check_world(cells: Sequence[Cell], world: World) -> None:
    """Another process may see other files than the one that has planned.

    Raises:
        UsageError: where models or images differ.
    """
    card = world.dataset.card
    inputs = cells[0].inputs
    if (inputs["world"], inputs["dataset"]) != (fingerprint(world), [card.name, card.revision]):
        raise UsageError(
            "a worker has other models or images than the command",
            where=card.name,
            mend="give every worker the same package, weights and data",
        )
    methods = sources_of_methods({name: METHODS.factory(name) for name in METHODS})
    here = {**sources_of_world(world), **sources_of_metrics(), **methods}
    planned = {name: source for cell in cells for name, source in cell.sources.items()}
    if other := sorted(name for name, source in planned.items() if here.get(name) != source):
        raise UsageError(
            f"a worker has another source of {', '.join(other)} than the command",
            where=card.name,
            mend="give every worker the same package and plugins, and edit none while it runs",
        )
