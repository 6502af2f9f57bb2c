"""Runs a plan: its tasks, on the engine that was asked for, and then by what lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from casl_bench.core.errors import UsageError
from casl_bench.core.files import make_folder
from casl_bench.domains.domain import Domain
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.run_folder import RecordStore, damaged_cells, set_aside
from casl_bench.runs.artifacts import Artifacts, check_room
from casl_bench.runs.cell import without_result
from casl_bench.runs.durations import Durations, RunClock, work_left
from casl_bench.runs.merge import analyse_run
from casl_bench.runs.parallel import Engine, check_engine, dask_engine, local_engine, serial_engine
from casl_bench.runs.plan import (
    Cell,
    check_guides,
    check_images,
    done,
    edited_since,
    identify,
    info_of,
    note_of_changed,
    null_work,
    open_domains,
    own_record,
    plan,
    prepare_domains,
    shared_work,
)
from casl_bench.runs.progress import Progress
from casl_bench.runs.suites import RunConfig
from casl_bench.runs.tasks import (
    Attempts,
    CellDiedError,
    Task,
    make_tasks,
    part_of,
    pending,
    with_gates,
)
from casl_bench.runs.worker import TaskResult, Worker

EXIT_DONE, EXIT_INCOMPLETE = 0, 3

DEATHS = 3
"""A task whose processes die so often outside of any cell is given up."""


class UnrecordedError(RuntimeError):
    """A process reported a cell as ended and left no record where this one looks."""


@one_thread()
def run(config: RunConfig, progress: Progress) -> int:
    """Run everything the config asks for that is not done yet; 3 if some cells failed, else 0.

    Records are written cell by cell, and their numbers last, in `numbers.jsonl`. Damaged ones are
    set aside, which one line says, and made again. Raises UsageError if there is no room on the
    disk, too few images, or no such engine, InvalidBenchmarkError if the benchmark itself cannot be
    trusted: a scorer under its floor, a control out of its bounds.
    """
    check_engine(config)
    prepare_domains(config, progress)
    with progress.task("opening models and images", 0):
        domains = open_domains(config)
        check_images(config, domains)
        check_guides(config, domains)
        cells = plan(config, identify(domains))
    resolutions = {d: w.dataset.card.resolution for d, w in domains.items()}
    tasks = make_tasks(config.suite, cells, resolutions)
    if config.execution.shard is not None:
        tasks = part_of(tasks, config.execution.shard)
    store = RecordStore(config.out)
    if line := set_aside(config.out, damaged_cells(store)):
        progress.note(line)
    failed = _carry_out(config, domains, store, tasks, progress)
    with progress.task("analysis of all scores", 0):
        analyse_run(config.out, config.datasets)
    progress.note(progress.costs.text())
    return EXIT_INCOMPLETE if failed else EXIT_DONE


def _carry_out(
    config: RunConfig,
    domains: Mapping[str, Domain],
    store: RecordStore,
    tasks: Sequence[Task],
    progress: Progress,
) -> bool:
    """Whether any cell failed."""
    cells = {c.key: c for task in tasks for c in task.cells}
    to_do = {key: c for key, c in cells.items() if done(store, c) is None}
    if edited := [names for c in to_do.values() if (names := edited_since(store, c))]:
        progress.note(note_of_changed(edited, "cell"))
    if to_do:
        check_room(config, [Artifacts(domain, config, progress) for domain in domains.values()])
    null = null_work(config.suite) * len(config.datasets)
    work_done = shared_work(config) + null if to_do else 0.0
    progress.start(sum(c.work for c in to_do.values()) + work_done)
    tasks = pending(tasks, {k for k, c in cells.items() if k not in to_do and _probed(store, c)})
    if config.execution.smoke:
        tasks = with_gates(tasks)
    jobs = max(1, min(config.jobs, sum(bool(task.cells) for task in tasks)))
    config = config.model_copy(update={"jobs": jobs})
    attempts = Attempts(config.out)
    attempts.clear()
    ended: set[str] = set()
    with ExitStack() as stack:
        engine = stack.enter_context(_engine(config, progress.note, bool(to_do)))
        alone = engine is None
        if engine is None:
            waves: list[Sequence[Task]] = [tasks]
            engine = serial_engine(Worker(config, domains.__getitem__, progress))
        else:
            # First cells of methods before those that they decide on.
            waves = [[t for t in tasks if t.gate is None], [t for t in tasks if t.gate is not None]]
            # Other processes report their costs; that this one waits for them costs nothing.
            stack.enter_context(progress.costs.phase(None))
        works = {t.name: work_left(t, to_do.keys()) for t in tasks}
        durations = Durations(config.cache)
        expected = {t.name: durations.seconds(config.suite, t, works[t.name]) for t in tasks}
        clock = RunClock(tasks, expected, jobs, None if alone else attempts)
        stack.enter_context(progress.following(clock))
        for result in drive(waves, engine, attempts, progress.note):
            ended.add(result.task)
            progress.costs.add(result.costs)
            for line in result.notes:
                progress.note(line)
            task = next(t for t in tasks if t.name == result.task)
            durations.note(config.suite, task, works[task.name], clock.end(task.name))
            work_done += sum(c.work for c in task.cells if c.key in to_do)
            progress.settle(work_done)
            if not alone:
                with progress.task(f"{task.name}: done", 1):
                    pass
        durations.save()
    attempts.tidy()
    return settle(config, domains, store, tasks, ended)


def _probed(store: RecordStore, cell: Cell) -> bool:
    """Whether the latents that a method ranks have been probed, where it may rank any."""
    if cell.control or cell.fit_seed or not info_of(cell.method).uses_sae:
        return True
    record = store.find(cell.probe_store_key)
    return record is not None and record.status != "failed"


@contextmanager
def _engine(config: RunConfig, say: Callable[[str], None], to_do: bool) -> Iterator[Engine | None]:
    """None for this process alone."""
    make_folder(config.out)  # a worker that does not see it is refused
    # Where nothing is to do, no process is started to find that out.
    name = config.execution.engine(config.jobs) if to_do else "serial"
    if name == "dask":
        with dask_engine(config, say) as engine:
            yield engine
    else:
        yield local_engine(config) if name == "local" else None


def drive(
    waves: Sequence[Sequence[Task]],
    engine: Engine,
    attempts: Attempts,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[TaskResult]:
    """Carry out tasks. Where a process dies, what had begun by then is run again, each task alone.

    So a task that kills its process costs others no more than what they had begun. A cell in which
    two processes died is recorded as failed by the next one, see `Attempts.fault`; a task whose
    processes die `DEATHS` times outside of any cell is given up: it has no result, nor have the
    tasks of its data set where it makes what they read. Tasks of one wave are begun when those
    before it are over.

    Raises BenchError as a task raises it, UsageError if processes die before they begin anything.
    """
    given_up: set[str] = set()
    for wave in waves:
        waiting, stalls = list(wave), 0
        while waiting := [t for t in waiting if t.dataset not in given_up]:
            ended = set()
            for result in engine(waiting):
                ended.add(result.task)
                yield result
            waiting = [t for t in waiting if t.name not in ended]
            suspects = [t for t in waiting if attempts.count(t.key)]
            stalls = 0 if ended or suspects or not waiting else stalls + 1
            if stalls == DEATHS:
                raise UsageError(
                    "worker processes die before they begin any work",
                    hint="give fewer --jobs, or --executor serial to see why",
                )
            for task in suspects:
                say(f"{task.name}: a process died that worked at it")
                if len(suspects) > 1:
                    # It may have died of another's fault: deaths count once it runs alone.
                    for cell in task.cells:
                        attempts.end(cell.key)
                results: list[TaskResult] = []
                idle = 0
                while not results and idle < DEATHS:
                    before = [attempts.count(cell.key) for cell in task.cells]
                    results = list(engine([task]))
                    yield from results
                    idle += before == [attempts.count(cell.key) for cell in task.cells]
                waiting.remove(task)
                if not results and not task.cells:
                    given_up.add(task.dataset)


def settle(
    config: RunConfig,
    domains: Mapping[str, Domain],
    store: RecordStore,
    tasks: Sequence[Task],
    ended: set[str],
) -> bool:
    """After all tasks: give every cell that has no record one with the reason.

    Returns whether any cell or probe failed, or something that concerns a whole data set was not
    made; `ended` are names of the tasks that came to their end.
    """
    failed = any(not task.cells and task.name not in ended for task in tasks)
    for task in tasks:
        for cell in task.cells:
            probe = store.find(cell.probe_store_key)
            failed |= probe is not None and probe.status == "failed"
            if done(store, cell) is not None:
                continue
            record = own_record(store, cell)
            if record is not None and record.status != "done":
                failed |= record.status == "failed"
                continue
            failed = True
            error: Exception = UnrecordedError(
                "a worker reported it as ended, but its record is not in this run folder: give "
                "--out on a folder that all machines share"
            )
            if task.name not in ended:
                error = CellDiedError(
                    "not run: processes died before it began, its own or those that make what it "
                    "reads"
                )
            store.write(without_result(domains[cell.dataset], config, cell, "failed", error))
    return failed
