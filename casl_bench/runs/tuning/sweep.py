"""The tuning sweep: every method gets equally many trials, scored on validation images.

A trial is one setting of a method, fitted on the training split with the suite's budget and
scored on validation images by `tuning_objective`. No test image is ever loaded. Each (trial, data
set, concept) is kept in a file of its own under a key of everything that decides its numbers, so
an interrupted sweep goes on where it stopped, and one with more trials, methods or concepts takes
over what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from pydantic import Field, JsonValue, ValidationError

from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import write_json
from casl_bench.images.dataset import Concept
from casl_bench.records.damage import set_aside
from casl_bench.records.record import Finite, Frozen
from casl_bench.records.record_store import RecordStore
from casl_bench.runs.cells.edit_cells import EditCells
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.plan import (
    WorldIdentity,
    card_of,
    concepts_of,
    fit_work,
    identify,
    info_of,
    make_method,
    open_worlds,
)
from casl_bench.runs.planning.sources import (
    Sources,
    changed,
    note_of_changed,
    sources_of_methods,
)
from casl_bench.runs.shared_work.artefacts import Artefacts, InvertedSplit
from casl_bench.runs.tuning.objective import objective
from casl_bench.runs.tuning.search_space import Trial, draw_trials, with_settings
from casl_bench.runs.watching.progress import Progress
from casl_bench.runs.watching.stopwatch import Stopwatch
from casl_bench.worlds.world import World

TUNING_VERSION = 1
"""Part of every key. Raise it when the sweep itself comes to give other numbers."""


@dataclass(frozen=True)
class Sweep:
    """A checked command.

    Attributes:
        config: the run around it; its suite carries no settings, so that trial 0 is the default.
        images: validation images a concept.
        trials: method → what is tried of it.
    """

    config: RunConfig
    images: int
    trials: dict[str, tuple[Trial, ...]]


@dataclass(frozen=True)
class Attempt:
    """The unit of work: one trial of one method on one concept of one data set."""

    dataset: str
    method: str
    trial: Trial
    concept: Concept
    work: float
    key: str
    sources: Sources


class TrialResult(Frozen):
    """What one attempt gave.

    Attributes:
        key: hash of everything that decides the numbers.
        dataset: its name.
        method: its name.
        method_version: as declared.
        concept: its name.
        settings: tried, over the method's defaults.
        method_config: all settings, as run.
        score: the objective, in [0, 1]; 0 where the attempt failed.
        flip_rate: see `Objective`; so are the next three.
        target_change: in sd.
        collateral: in sd.
        strength: chosen by the suite's rule on the same images.
        fit_unet_calls: what the fit costs, in images.
        fit_reused: whether the fit was there already: settings that only matter when editing, or
            methods, may share one.
        edit_unet_calls: of all images at all strengths, in images.
        fit_seconds: wall time here, next to nothing for a fit that was there.
        edit_seconds: wall time.
        error: why it failed, or None.
        sources: as in the provenance of a record.
    """

    key: str
    dataset: str
    method: str
    method_version: int
    concept: str
    settings: dict[str, JsonValue]
    method_config: dict[str, JsonValue]
    score: Finite = Field(0.0, ge=0, le=1)
    flip_rate: Finite | None = None
    target_change: Finite | None = None
    collateral: Finite | None = None
    strength: Finite | None = None
    fit_unet_calls: Finite = 0.0
    fit_reused: bool = False
    edit_unet_calls: Finite = 0.0
    fit_seconds: Finite = 0.0
    edit_seconds: Finite = 0.0
    error: str | None = None
    sources: dict[str, str] = Field(default_factory=dict)


class TrialStore:
    """One file an attempt, named by its key.

    Args:
        folder: made on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, result: TrialResult) -> None:
        """Keep a result, at once or not at all."""
        write_json(self._path(result.key), result.model_dump(mode="json"))

    def find(self, key: str) -> TrialResult | None:
        """The result under a key, or None where there is none.

        Raises:
            InvalidBenchmarkError: if its file is damaged.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            result = TrialResult.model_validate_json(path.read_bytes())
            if result.key != key:
                raise ValueError("it is of another trial")
        except (OSError, ValueError, ValidationError) as error:
            raise InvalidBenchmarkError(
                "a stored trial cannot be read",
                where=str(path),
                mend="run the folder's command again to make it anew",
            ) from error
        return result

    def damaged(self, keys: Iterable[str]) -> tuple[Path, ...]:
        """Files of these keys that are not what was written, as far as they tell."""
        return tuple(self._path(key) for key in keys if not self._is_whole(key))

    def _is_whole(self, key: str) -> bool:
        try:
            self.find(key)
        except InvalidBenchmarkError:
            return False
        return True

    def done(self, key: str) -> TrialResult | None:
        """What the attempt gave when it succeeded; one that failed is made again."""
        result = self.find(key)
        return None if result is None or result.error is not None else result

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"


def make_sweep(config: RunConfig, trials: int, images: int) -> Sweep:
    """Draw the trials of every method.

    Args:
        config: the run; the settings of its suite are dropped.
        trials: how many a method, the default included.
        images: validation images a concept.

    Raises:
        UsageError: on a control, on a search space at fault, or where there is no concept.
    """
    suite = config.suite.model_copy(update={"settings": {}})
    for name in config.methods:
        if info_of(name).control:
            raise UsageError(f"'{name}' is a control", mend="there is nothing to tune about it")
    if not any(concepts_of(card_of(d), config.concepts) for d in config.datasets):
        raise UsageError("there is nothing to try", mend="choose other concepts or data sets")
    return Sweep(
        config.model_copy(update={"suite": suite}),
        images,
        {name: draw_trials(name, suite, trials, config.seed) for name in config.methods},
    )


def attempts(sweep: Sweep, worlds: Mapping[str, WorldIdentity]) -> tuple[Attempt, ...]:
    """Everything a sweep does, in order: trial by trial, so that methods stay level on the way.

    Args:
        sweep: the command.
        worlds: data set → its world, as from `identify`.
    """
    suite = sweep.config.suite
    made = []
    for dataset in sweep.config.datasets:
        card = worlds[dataset].card
        for number in range(max(len(t) for t in sweep.trials.values())):
            for name, trials in sweep.trials.items():
                for trial in trials[number : number + 1]:
                    method = make_method(name, with_settings(suite, name, trial.settings))
                    edit = sweep.images * len(suite.strengths) * suite.num_steps
                    for concept in concepts_of(card, sweep.config.concepts):
                        key = {
                            "tuning": TUNING_VERSION,
                            "run": sweep.config.key(),
                            "images": sweep.images,
                            "world": worlds[dataset].fingerprint,
                            "dataset": [card.name, card.revision],
                            "concept": asdict(concept),
                            "method": [
                                name,
                                method.info.version,
                                method.config.model_dump(mode="json"),
                            ],
                        }
                        work = fit_work(method, suite) + edit
                        sources = {
                            **worlds[dataset].sources,
                            **sources_of_methods({name: type(method)}),
                        }
                        made.append(
                            Attempt(dataset, name, trial, concept, work, hash_json(key), sources)
                        )
    return tuple(made)


def tune(sweep: Sweep, progress: Progress) -> tuple[tuple[Attempt, TrialResult], ...]:
    """Make every attempt that is not there yet.

    A method that fails is given score 0 on that concept, and tried again by the next call. A trial
    whose file is damaged is set aside and made again.

    Returns:
        All attempts of the sweep with their results.

    Raises:
        InvalidBenchmarkError: if the benchmark itself cannot be trusted.
    """
    config = sweep.config
    worlds = open_worlds(config)
    planned = attempts(sweep, identify(worlds))
    store = TrialStore(config.out / "trials")
    to_do = _to_do(config, store, planned, progress)
    done = _shared_work(sweep) if to_do else 0.0
    progress.start(done + sum(a.work for a in to_do))
    for dataset, world in worlds.items():
        run = _DatasetSweep(world, sweep, progress)
        for attempt in (a for a in to_do if a.dataset == dataset):
            store.write(run.make(attempt))
            done += attempt.work
            progress.settle(done)
    return tuple((a, _present(store, a)) for a in planned)


def _to_do(
    config: RunConfig, store: TrialStore, planned: Sequence[Attempt], progress: Progress
) -> list[Attempt]:
    """Attempts without a result that counts; what was there and does not is said."""
    if line := set_aside(config.out, store.damaged(a.key for a in planned)):
        progress.note(line)
    to_do, edited = [], []
    for attempt in planned:
        known = store.done(attempt.key)
        names = () if known is None else changed(known.sources, attempt.sources)
        if known is None or names:
            to_do.append(attempt)
        if names:
            edited.append(names)
    if edited:
        names = tuple(name for found in edited for name in found)
        progress.note(note_of_changed(names, f"{len(edited)} trial{'s' * (len(edited) > 1)}"))
    return to_do


def _present(store: TrialStore, attempt: Attempt) -> TrialResult:
    result = store.find(attempt.key)
    assert result is not None  # every attempt leaves a result
    return result


def _shared_work(sweep: Sweep) -> float:
    suite = _wider(sweep).suite
    images = suite.train_images + suite.validation_pool_images
    passes = 2 + suite.refinements
    return float(passes * images * suite.num_steps * len(sweep.config.datasets))


def _wider(sweep: Sweep) -> RunConfig:
    """The run with the sweep's number of validation images."""
    suite = sweep.config.suite.model_copy(update={"validation_images": sweep.images})
    return sweep.config.model_copy(update={"suite": suite})


class _DatasetSweep:
    """All attempts on one data set. Nothing is computed before the first."""

    def __init__(self, world: World, sweep: Sweep, progress: Progress) -> None:
        self.sweep, self.progress = sweep, progress
        # Fits see exactly what a run of the suite gives them; only what is scored is wider.
        self.artefacts = Artefacts(world, sweep.config, progress)
        self.wider = Artefacts(world, _wider(sweep), progress)
        self.cells = EditCells(self.artefacts, RecordStore(sweep.config.out), progress)

    @cached_property
    def pool(self) -> InvertedSplit:
        """Validation images from which each concept takes those that lack its attribute."""
        return self.wider.validation

    def make(self, attempt: Attempt) -> TrialResult:
        """Fit, edit, score. A fault of the method ends this attempt alone."""
        suite = with_settings(self.sweep.config.suite, attempt.method, attempt.trial.settings)
        method = make_method(attempt.method, suite)
        result = TrialResult(
            key=attempt.key,
            dataset=attempt.dataset,
            method=attempt.method,
            method_version=method.info.version,
            concept=attempt.concept.name,
            settings=attempt.trial.settings,
            method_config=method.config.model_dump(mode="json"),
            sources=dict(attempt.sources),
        )
        split = self.wider.concept_split(self.pool, attempt.concept, self.sweep.images)
        watch = Stopwatch()
        fits_before = self.cells.fitting.store.made
        try:
            tried = self.cells.try_out(method, attempt.concept, split, watch, attempt.work)
            spread = self.cells.yardstick.spreads[0]
            found = objective(tried.table, attempt.concept.attribute, spread)
        except InvalidBenchmarkError:
            raise
        except Exception as error:  # noqa: BLE001 - a setting may break a method in any way
            message = " ".join(f"{type(error).__name__}: {error}".split())
            self.progress.note(
                f"{attempt.method} trial {attempt.trial.number} / {attempt.concept.name} failed: "
                f"{message}"
            )
            return result.model_copy(update={"error": message})
        return result.model_copy(
            update={
                "score": found.score,
                **asdict(found),
                "fit_unet_calls": tried.fit_cost.unet_calls,
                "fit_reused": self.cells.fitting.store.made == fits_before,
                "edit_unet_calls": tried.edit_unet_calls,
                "fit_seconds": watch.seconds["fit"],
                "edit_seconds": watch.seconds["edit"],
            }
        )
