"""Runs a plan: data set by data set, in this process or in several."""

from __future__ import annotations

from casl_bench.comparison.controls import check_bounds
from casl_bench.records.record_store import RecordStore
from casl_bench.runs.cells.comparing import Comparing
from casl_bench.runs.cells.dataset_run import DatasetRun
from casl_bench.runs.execution.parallel import run_in_processes
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.judges import check_judges
from casl_bench.runs.planning.plan import (
    Cell,
    check_images,
    identify,
    is_done,
    open_worlds,
    plan,
    shared_work,
)
from casl_bench.runs.shared_work.artefacts import Artefacts, check_room
from casl_bench.runs.watching.progress import Progress

EXIT_DONE, EXIT_INCOMPLETE = 0, 3


def run(config: RunConfig, progress: Progress) -> int:
    """Run everything the config asks for that is not done yet.

    Records are written cell by cell; `records.jsonl` last.

    Returns:
        0 if every cell is done, 3 if some failed.

    Raises:
        UsageError: if the disk or its budget has no room for what would be made, or a data set has
            too few images.
        InvalidBenchmarkError: if the benchmark itself cannot be trusted: a scorer under its floor,
            a corrupt artefact, a control out of its bounds.
    """
    worlds = open_worlds(config)
    check_images(config, worlds)
    check_judges(config, worlds)
    cells = plan(config, identify(worlds))
    store = RecordStore(config.out)
    to_do = [c for c in cells if not is_done(store, c)]
    if to_do:
        check_room(config, [Artefacts(world, config, progress) for world in worlds.values()])
    shared = shared_work(config) if to_do else 0.0
    progress.start(sum(c.work for c in to_do) + shared)
    counted = _Counted(progress, shared)
    if config.jobs > 1 and to_do:
        with progress.costs.phase(None):  # the processes tell what they have spent
            failed = run_in_processes(config, cells, store, progress, counted.finished)
    else:
        failed = False
        for dataset, world in worlds.items():
            own = [c for c in cells if c.dataset == dataset]
            dataset_run = DatasetRun(world, config, store, progress)
            dataset_run.prepare()
            failed |= dataset_run.run_cells(own, counted.finished)
            dataset_run.finish(own)
    store.write_jsonl()
    check_bounds([r for r in store if r.dataset in worlds], config.out)
    Comparing(config, cells, store).write()
    store.write_jsonl()
    progress.note(progress.costs.text())
    return EXIT_INCOMPLETE if failed else EXIT_DONE


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
