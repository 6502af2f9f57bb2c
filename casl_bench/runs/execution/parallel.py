"""A run in several processes: first what a data set's cells share, then concepts side by side.

Concepts share nothing but what lies in the run folder by then (inversions, SAE), so each is a job
of its own. A process keeps its world for the next job. Records on disk are the result: what a
process says is only whether a cell failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from casl_bench.records.record_store import RecordStore
from casl_bench.runs.cells.dataset_run import DatasetRun
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.runs.planning.plan import Cell, identify, is_done, open_worlds, plan
from casl_bench.runs.watching.phase_costs import PhaseCost
from casl_bench.runs.watching.progress import Progress, SilentProgress

_runs: dict[str, DatasetRun] = {}
"""Of a worker process: the data set that it is at."""


@dataclass(frozen=True)
class Job:
    """What one process does without a word from the others.

    Attributes:
        stage: what all cells of a data set share, the cells of one concept, or what comes last.
        dataset: its name.
        concept: of the stage "cells".
    """

    stage: Literal["shared", "cells", "last"]
    dataset: str
    concept: str = ""

    @property
    def label(self) -> str:
        """As shown to the user."""
        return f"{self.dataset} / {self.concept or self.stage}"


class _Notes(SilentProgress):
    """Keeps what is to be said, for the process that speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)


def run_in_processes(
    config: RunConfig,
    cells: Sequence[Cell],
    store: RecordStore,
    progress: Progress,
    finished: Callable[[Cell], None],
) -> bool:
    """Run all cells of a plan.

    Every process computes with the machine's cores over `jobs` threads. Sums of another number of
    threads may differ in their last bit, so numbers are those of a run in one process with as many
    threads.

    Args:
        config: the run; `jobs` is how many processes.
        cells: the plan.
        store: the run's records.
        progress: shown meanwhile.
        finished: called with every cell that was to do, once it is done.

    Returns:
        Whether any cell failed, or a process died.

    Raises:
        InvalidBenchmarkError: as a data set or a cell raises it.
    """
    concepts = dict.fromkeys((cell.dataset, cell.concept.name) for cell in cells)
    to_do: dict[Job, list[Cell]] = {Job("cells", *concept): [] for concept in concepts}
    for cell in cells:
        if not is_done(store, cell):
            to_do[Job("cells", cell.dataset, cell.concept.name)].append(cell)
    stages = (
        [Job("shared", dataset) for dataset in config.datasets],
        list(to_do),
        [Job("last", dataset) for dataset in config.datasets],
    )
    failed = False
    try:
        for stage in stages:
            for job, job_failed, notes, costs in _side_by_side(config, stage):
                failed |= job_failed
                progress.costs.add(costs)
                for line in notes:
                    progress.note(line)
                for cell in to_do.get(job, ()):
                    finished(cell)
                with progress.task(f"{job.label}: done", 1):
                    pass
    except TerminatedWorkerError:
        progress.note(
            "a process died, perhaps for want of memory: run the same command again to go on, "
            "with fewer --jobs"
        )
        return True
    except BaseException:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise
    return failed


_Done = tuple[Job, bool, list[str], dict[str, PhaseCost]]
"""A job, whether a cell of it failed, what is to be said, and what it cost."""


def _side_by_side(config: RunConfig, jobs: Sequence[Job]) -> Iterable[_Done]:
    """The jobs' results as they come."""
    threads = max(1, (os.cpu_count() or 1) // config.jobs)
    with parallel_config("loky", n_jobs=config.jobs, inner_max_num_threads=threads):
        # No job is handed out in advance: the next one goes to whoever is free.
        parallel = Parallel(return_as="generator_unordered", pre_dispatch=config.jobs)
        yield from parallel(delayed(_work)(config, job, threads) for job in jobs)


def _work(config: RunConfig, job: Job, threads: int) -> _Done:
    """In a worker."""
    notes = _Notes()
    torch.set_num_threads(threads)
    load_entrants(config.plugins)
    own = config.model_copy(update={"datasets": (job.dataset,)})
    if job.concept:
        own = own.model_copy(update={"concepts": (job.concept,)})
    if job.dataset not in _runs:
        _runs.clear()
        world = open_worlds(own)[job.dataset]
        _runs[job.dataset] = DatasetRun(world, config, RecordStore(config.out), notes)
    run = _runs[job.dataset]
    run.hear(notes)
    cells = plan(own, identify({job.dataset: run.world}))
    failed = False
    if job.stage == "shared":
        run.prepare()
        run.share(cells)
    elif job.stage == "cells":
        failed = run.run_cells(cells, lambda cell: None)
    else:
        run.finish(cells)
    return job, failed, notes.lines, notes.costs.by_phase()
