"""After the last word of all processes: what lies on disk decides, and no cell stays without word.

That a node was heard of is a hint, and so is that it was not: a cell that is done is done whoever
died afterwards. What is neither done nor has failed by itself is given a record of why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from casl_bench.records.record_store import CellKey, RecordStore
from casl_bench.runs.cells.record_parts import without_result
from casl_bench.runs.execution.attempts import Attempts, CellDiedError
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.finished import standing
from casl_bench.runs.planning.plan import KEY_ARTEFACT, Cell
from casl_bench.worlds.world import World


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
        Whether any cell or probe failed, a cell lacks what it is compared with, or something that
        concerns a whole data set was not to be made.

    Raises:
        InvalidBenchmarkError: if a record is corrupt.
    """
    failed = False
    attempts = Attempts(config.out)
    for node in nodes:
        failed |= node.name not in heard and not node.cells
        for cell in node.cells:
            now = standing(store, cell)
            if now.record is not None:
                failed |= now.awaits or _has_failed(store, cell.probe_store_key)
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
