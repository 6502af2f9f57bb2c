"""The tuning sweep: every method gets equally many trials, on nothing that it is judged on.

A trial is one setting of a method, fitted on the training split with the suite's budget on each of
a domain's tuning concepts, which no table ranks, and scored on validation images by the tuning
classifier, which never scores anything else. No test image is ever loaded. Each (trial, data set,
concept) is kept in a file of its own under a key of everything that decides its numbers, so an
interrupted sweep goes on where it stopped, and one with more trials or methods takes over what is
there. Whatever was tried in a folder counts, second sweeps and other search spaces too: no method
is tried more often there than another.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, JsonValue, ValidationError
from tabulate import tabulate

from casl_bench.core import stops
from casl_bench.core.errors import InvalidBenchmarkError, UsageError, as_line, unknown_name
from casl_bench.core.files import hash_json, read_whole, write_json, write_text
from casl_bench.domains.dataset import Concept
from casl_bench.domains.domain import Domain
from casl_bench.methods.method import METHODS
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.edit_success import MEAN_COLLATERAL, SIGNED_TARGET_CHANGE
from casl_bench.metrics.precise_edits import image_outcomes
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.provenance import collect_provenance
from casl_bench.results.record import Finite, Frozen
from casl_bench.results.run_folder import RecordStore, set_aside
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.cell import EditCells
from casl_bench.runs.plan import (
    changed,
    fit_work,
    identify,
    info_of,
    make_method,
    note_of_changed,
    open_domains,
    prepare_domains,
    shared_work,
    sources_of_methods,
)
from casl_bench.runs.progress import Progress, Stopwatch
from casl_bench.runs.strength import FLIP_GOAL, FLIPS, Goal, Responses, flipped_share
from casl_bench.runs.suites import RunConfig, Suite


@dataclass(frozen=True)
class Objective:
    """How good the edits of one concept are, with what the number is made of.

    Attributes:
        score: share of precise edits, mean over tolerances, at the strength with the most of them:
            the headline, as far as it needs no scorer. In [0, 1], and what a sweep maximises.
        strength: at which all below is measured: the smallest that flips nine of ten.
        flip_rate: of the images without the attribute, the share that has it after the edit; 0
            where every reconstruction had it already.
        target_change: mean change of the target towards the concept, in sd; may be negative.
        collateral: mean absolute change of the other attributes, in sd.
    """

    score: float
    strength: float
    flip_rate: float
    target_change: float
    collateral: float

    @property
    def precision(self) -> float:
        """Precision at the flip rate that is asked for, in [0, 1], higher is better.

        That is T / (T + C), T the target change clipped at >= 0 and C the collateral. Where fewer
        images flip, it counts for so much less: min(flips / goal, 1) is a factor. It decides
        between trials of the same score.
        """
        target = max(self.target_change, 0.0)
        if not self.flip_rate or not target:
            return 0.0
        return min(self.flip_rate / FLIP_GOAL, 1.0) * (target / (target + self.collateral))


def strength_of_flips(responses: Responses) -> float:
    """The strength at which the goal is crossed; where it is not, that with the most flips.

    Of several of these the one with the largest change of the target, then the smallest.
    """
    found = FLIPS.level(responses)
    if found.status == "reached" and found.strength is not None:
        return found.strength
    ranked = [(share, effect, -strength) for share, effect, strength in zip(
        FLIPS.response(responses), Goal("", 0.0, "sd").response(responses), sorted(responses),
        strict=True,
    )]  # fmt: skip
    return -max(ranked)[2]


def objective(responses: Responses) -> Objective:
    """Measure edits of validation images at the strengths tried.

    Precise edits are counted where a run would run the method, at the strength with the most;
    all else at the smallest strength that reaches the goal, or where none does at that of
    `strength_of_flips`, since precision falls with strength.
    """
    reach = [s for s in sorted(responses) if flipped_share(responses[s]) >= FLIP_GOAL]
    strength = reach[0] if reach else strength_of_flips(responses)
    scores = responses[strength]
    return Objective(
        score=max(_precise_share(own) for own in responses.values()),
        strength=strength,
        flip_rate=flipped_share(scores),
        target_change=SIGNED_TARGET_CHANGE.value(scores) or 0.0,
        collateral=MEAN_COLLATERAL.value(scores) or 0.0,
    )


def _precise_share(scores: EditScores) -> float:
    """By the tuning classifier and the background's pixels: what else counts is a scorer's."""
    own = replace(scores, factor_worst=None, identity=None, perceptual=None)
    outcomes = image_outcomes([own])
    eligible = int(outcomes.eligible.sum())
    return float(outcomes.credit().sum() / eligible) if eligible else 0.0


BUDGET_FIELDS = ("fit_steps", "batch_size")
"""What decides how much a fit computes: equal for all trials, so never part of a search space."""
MAX_POINTS = 100_000

Space = Mapping[str, tuple[JsonValue, ...]]


@dataclass(frozen=True)
class Trial:
    """One setting of a method to be tried, over its defaults; number 0 is the default."""

    number: int
    settings: dict[str, JsonValue]


def with_settings(suite: Suite, name: str, settings: dict[str, JsonValue]) -> Suite:
    """The suite with these settings for one method, and the defaults for every other."""
    return suite.model_copy(update={"settings": {name: settings}})


def search_space(name: str) -> Space:
    """What a method's classmethod `search_space` declares; empty for a method without one.

    Raises UsageError if it is not a non-empty tuple of JSON values for each of some of the method's
    settings, or if it varies the budget.
    """
    declare = getattr(METHODS.factory(name), "search_space", None)
    declared = {} if declare is None else declare()
    where = f"search_space of '{name}'"
    fields = type(METHODS.create(name).config).model_fields
    for field, values in declared.items():
        if field not in fields:
            raise unknown_name("setting", field, fields, where)
        if field in BUDGET_FIELDS:
            raise UsageError(
                f"it varies '{field}'", where=where, hint="all trials are given the same budget"
            )
        try:
            known = isinstance(values, tuple | list) and values and hash_json(values)
        except (TypeError, ValueError):  # not JSON
            known = False
        if not known:
            raise UsageError(
                f"'{field}' has no values to try", where=where, hint="give a tuple of JSON values"
            )
    if prod(len(v) for v in declared.values()) > MAX_POINTS:
        raise UsageError(f"it has more than {MAX_POINTS:,} points", where=where, hint="cut it")
    return {field: tuple(declared[field]) for field in sorted(declared)}


def draw_trials(name: str, suite: Suite, count: int, seed: int) -> tuple[Trial, ...]:
    """The trials of one method: its default, then `count - 1` other points of its space.

    Points are walked in the order of their hash with the seed and the method's name: a uniform
    sample without repetition, that neither the order of fields nor the other methods change, and of
    which a smaller count is the beginning. A point that is the default in other words is skipped.
    A method without a search space has its default alone.
    Raises UsageError if the space is at fault or holds too few points.
    """
    space = search_space(name)
    trials = [Trial(0, {})]
    if not space:
        return tuple(trials)
    points = [
        dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
    ]
    points.sort(key=lambda point: hash_json([seed, "tuning", name, point]))
    tried = [_config(name, suite, {})]
    for point in points:
        if len(trials) == count:
            break
        config = _config(name, suite, point)
        if config not in tried:
            tried.append(config)
            trials.append(Trial(len(trials), {field: config[field] for field in point}))
    if len(trials) < count:
        raise UsageError(
            f"it holds {len(trials)} settings with the default, fewer than {count} trials",
            where=f"search_space of '{name}'",
            hint=f"ask for --trials {len(trials)}, or enlarge it: every method gets as many",
        )
    return tuple(trials)


def _config(name: str, suite: Suite, point: dict[str, JsonValue]) -> dict[str, JsonValue]:
    method = make_method(name, with_settings(suite, name, point))
    return method.config.model_dump(mode="json")


TUNING_VERSION = 3
"""Part of every key. Raise it when the sweep itself comes to give other numbers."""


@dataclass(frozen=True)
class Sweep:
    """A checked command, with what is tried of each method; its suite carries no settings.

    The domains have the tuning classifier for their only one, see `Domain.for_tuning`.
    """

    config: RunConfig
    images: int
    trials: dict[str, tuple[Trial, ...]]
    domains: Mapping[str, Domain]


class TrialResult(Frozen):
    """What one attempt gave.

    Attributes:
        key: hash of everything that decides the numbers.
        settings: tried, over the method's defaults.
        method_config: all settings, as run.
        score: what the sweep maximises, in [0, 1]; 0 where the attempt failed.
        precision: see `Objective`; so are the next four.
        fit_unet_calls: what the fit costs, in images.
        fit_reused: whether the fit was there already: settings that only matter when editing, or
            methods, may share one; then `fit_seconds` is next to nothing.
        edit_unet_calls: of all images at all strengths, in images.
    """

    key: str
    dataset: str
    method: str
    method_version: int
    concept: str
    settings: dict[str, JsonValue]
    method_config: dict[str, JsonValue]
    score: Finite = Field(0.0, ge=0, le=1)
    precision: Finite = Field(0.0, ge=0, le=1)
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


@dataclass(frozen=True)
class Attempt:
    """The unit of work: one trial of one method on one concept of one data set.

    Attributes:
        blank: its result, with nothing but what was asked for.
        work: estimated U-Net calls, in images.
    """

    trial: Trial
    concept: Concept
    work: float
    blank: TrialResult


class TrialStore:
    """One file an attempt, named by its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, result: TrialResult) -> None:
        """Keep a result, at once or not at all."""
        write_json(self._path(result.key), result.model_dump(mode="json"))

    def find(self, key: str) -> TrialResult | None:
        """The result under a key, or None. Raises InvalidBenchmarkError if it is damaged."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            result = TrialResult.model_validate_json(read_whole(path))
            if result.key != key:
                raise ValueError("it is of another trial")
        except (OSError, ValueError, ValidationError) as error:
            raise InvalidBenchmarkError(
                "a stored trial cannot be read",
                where=str(path),
                hint="run the folder's command again to make it anew",
            ) from error
        return result

    def all(self) -> list[TrialResult]:
        """Every result of the folder that can be read."""
        paths, found = sorted(self.folder.glob("*.json")), []
        for path in paths:
            try:
                found.append(TrialResult.model_validate_json(read_whole(path)))
            except (OSError, ValueError, ValidationError):
                continue  # `damaged` sets it aside where it is asked for
        return found

    def damaged(self, keys: Iterable[str]) -> tuple[Path, ...]:
        """Files of these keys that are not what was written, as far as they tell."""
        found = []
        for key in keys:
            try:
                self.find(key)
            except InvalidBenchmarkError:
                found.append(self._path(key))
        return tuple(found)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"


def make_sweep(config: RunConfig, trials: int, images: int) -> Sweep:
    """Draw the trials of every method: `trials` of each, the default included.

    The settings of the run's suite are dropped. Raises UsageError on a control, on a search space
    at fault, or on a data set that has nothing to tune by.
    """
    suite = config.suite.model_copy(update={"settings": {}})
    for name in config.methods:
        if info_of(name).control:
            raise UsageError(f"'{name}' is a control", hint="there is nothing to tune about it")
    return Sweep(
        config.model_copy(update={"suite": suite}),
        images,
        {name: draw_trials(name, suite, trials, config.seed) for name in config.methods},
        {name: domain.for_tuning() for name, domain in open_domains(config).items()},
    )


def attempts(sweep: Sweep) -> tuple[Attempt, ...]:
    """Everything a sweep does, in order: trial by trial, so that methods stay level on the way."""
    suite, made = sweep.config.suite, []
    identities = identify(sweep.domains)
    most = max(len(trials) for trials in sweep.trials.values())
    ordered = [
        (name, trials[number])
        for number in range(most)
        for name, trials in sweep.trials.items()
        if number < len(trials)
    ]
    edit = sweep.images * len(suite.strengths) * suite.num_steps
    for dataset in sweep.config.datasets:
        identity = identities[dataset]
        card = identity.card
        for name, trial in ordered:
            method = make_method(name, with_settings(suite, name, trial.settings))
            work = fit_work(method, suite) + edit
            version, settings = method.info.version, method.config.model_dump(mode="json")
            sources = {**identity.sources, **sources_of_methods([name])}
            for concept in sweep.domains[dataset].tuning_concepts:
                key = {
                    "tuning": TUNING_VERSION,
                    "run": sweep.config.key(),
                    "images": sweep.images,
                    "world": identity.fingerprint,
                    "dataset": [card.name, card.revision],
                    "concept": asdict(concept),
                    "method": [name, version, settings],
                }
                blank = TrialResult(
                    key=hash_json(key), dataset=dataset, method=name, method_version=version,
                    concept=concept.name, settings=trial.settings, method_config=settings,
                    sources=sources,
                )  # fmt: skip
                made.append(Attempt(trial, concept, work, blank))
    return tuple(made)


@one_thread()
def tune(sweep: Sweep, progress: Progress) -> tuple[tuple[Attempt, TrialResult], ...]:
    """Make every attempt that is not there yet; all attempts with their results.

    A method that fails is given score 0 on that concept, and tried again by the next call. A trial
    whose file is damaged is set aside and made again. Raises InvalidBenchmarkError if the benchmark
    itself cannot be trusted, and UsageError where a method would have more trials in this folder
    than another.
    """
    config = sweep.config
    prepare_domains(config, progress)
    planned = attempts(sweep)
    store = TrialStore(config.out / "trials")
    _check_budget(sweep, store, planned)
    to_do = _to_do(config, store, planned, progress)
    done = shared_work(_wider(sweep), splits=("train", "validation")) if to_do else 0.0
    progress.start(done + sum(a.work for a in to_do))
    for dataset, domain in sweep.domains.items():
        run = _DatasetSweep(domain, sweep, progress)
        for attempt in (a for a in to_do if a.blank.dataset == dataset):
            store.write(run.make(attempt))
            done += attempt.work
            progress.settle(done)
    results = []
    for attempt in planned:
        result = store.find(attempt.blank.key)
        assert result is not None  # every attempt leaves a result
        results.append((attempt, result))
    return tuple(results)


def _check_budget(sweep: Sweep, store: TrialStore, planned: Sequence[Attempt]) -> None:
    """Refuse a sweep after which one method had been tried more often in its folder than another.

    Settings count, whatever search space or version of the method they are of.
    """
    tried: dict[str, set[str]] = {}
    for result in [*store.all(), *(attempt.blank for attempt in planned)]:
        tried.setdefault(result.method, set()).add(
            hash_json([result.method_version, result.method_config])
        )
    allowed = max(len(trials) for trials in sweep.trials.values())
    for name, settings in sorted(tried.items()):
        tunable = len(sweep.trials.get(name, ())) > 1 or name not in sweep.trials
        if len(settings) > allowed or (tunable and 1 < len(settings) < allowed):
            raise UsageError(
                f"'{name}' would have {len(settings)} settings tried there, others {allowed}",
                where=str(store.folder),
                hint="every method gets equally many, second sweeps included: name all methods and "
                "as many --trials, or give --out another folder",
            )


def _to_do(
    config: RunConfig, store: TrialStore, planned: Sequence[Attempt], progress: Progress
) -> list[Attempt]:
    """Attempts without a result that counts; a note says what was there and does not."""
    if line := set_aside(config.out, store.damaged(a.blank.key for a in planned)):
        progress.note(line)
    to_do, edited = [], []
    for attempt in planned:
        known = store.find(attempt.blank.key)
        if known is None or known.error is not None:
            to_do.append(attempt)
        elif names := changed(known.sources, attempt.blank.sources):
            to_do.append(attempt)
            edited.append(names)
    if edited:
        progress.note(note_of_changed(edited, "trial"))
    return to_do


def _wider(sweep: Sweep) -> RunConfig:
    """The run with the sweep's number of validation images."""
    suite = sweep.config.suite.model_copy(update={"validation_images": sweep.images})
    return sweep.config.model_copy(update={"suite": suite})


class _DatasetSweep:
    def __init__(self, domain: Domain, sweep: Sweep, progress: Progress) -> None:
        self.sweep, self.progress = sweep, progress
        # Fits see exactly what a run of the suite gives them; only what is scored is wider.
        self.artifacts = Artifacts(domain, sweep.config, progress)
        self.wider = Artifacts(domain, _wider(sweep), progress)
        self.cells = EditCells(self.artifacts, RecordStore(sweep.config.out))

    def make(self, attempt: Attempt) -> TrialResult:
        """Fit, edit, score. A fault of the method ends this attempt alone."""
        name, suite = attempt.blank.method, self.sweep.config.suite
        method = make_method(name, with_settings(suite, name, attempt.trial.settings))
        split = self.wider.concept_validation(attempt.concept)
        watch = Stopwatch()
        fits_before = self.cells.fitting.store.made
        try:
            responses, cost, edit_calls = self.cells.run_trial(
                method,
                attempt.concept,
                split,
                (FLIPS,),
                strength_of_flips,
                watch,
                attempt.work,
            )
            found = objective(responses)
        except (InvalidBenchmarkError, KeyboardInterrupt):
            raise
        except BaseException as error:  # settings break in any way
            if stops.came:
                raise
            message = as_line(error)
            self.progress.note(
                f"{name} trial {attempt.trial.number} / {attempt.concept.name} failed: {message}"
            )
            return attempt.blank.model_copy(update={"error": message})
        return attempt.blank.model_copy(
            update={
                **asdict(found),
                "precision": found.precision,
                "fit_unet_calls": cost.unet_calls,
                "fit_reused": self.cells.fitting.store.made == fits_before,
                "edit_unet_calls": edit_calls,
                "fit_seconds": watch.seconds["fit"],
                "edit_seconds": watch.seconds["edit"],
            }
        )


Results = Sequence[tuple[Attempt, TrialResult]]


@dataclass(frozen=True)
class TrialSummary:
    """One trial over all data sets and concepts."""

    trial: Trial
    results: tuple[TrialResult, ...]

    @property
    def by_dataset(self) -> dict[str, float]:
        """Data set → mean score over its concepts."""
        names = dict.fromkeys(r.dataset for r in self.results)
        return {d: fmean(r.score for r in self.results if r.dataset == d) for d in names}

    @property
    def score(self) -> float:
        """Mean over data sets of the mean over concepts: data sets weigh the same."""
        return fmean(self.by_dataset.values())

    @property
    def precision(self) -> float:
        """Mean over all concepts."""
        return fmean(r.precision for r in self.results)

    @property
    def failures(self) -> int:
        """Concepts on which it failed."""
        return sum(r.error is not None for r in self.results)


def by_method(results: Results) -> dict[str, list[TrialSummary]]:
    """Method → its trials in order."""
    found: dict[str, dict[int, tuple[Trial, list[TrialResult]]]] = {}
    for attempt, result in results:
        trial = attempt.trial
        found.setdefault(result.method, {}).setdefault(trial.number, (trial, []))[1].append(result)
    return {
        name: [TrialSummary(trial, tuple(own)) for _, (trial, own) in sorted(trials.items())]
        for name, trials in found.items()
    }


def best(trials: Sequence[TrialSummary]) -> TrialSummary:
    """The trial with the highest score; of equals the more precise one, then the earlier."""
    return max(trials, key=lambda t: (t.score, t.precision, -t.trial.number))


def write_outputs(sweep: Sweep, results: Results) -> None:
    """Write the three files into the sweep's folder."""
    out, tried = sweep.config.out, by_method(results)
    lines = [json.dumps({"trial": a.trial.number, **r.model_dump(mode="json")}) for a, r in results]
    write_text(out / "trials.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(out / "chosen.json", {name: best(t).trial.settings for name, t in tried.items()})
    write_text(out / "README.md", readme(sweep, tried))


def readme(sweep: Sweep, tried: dict[str, list[TrialSummary]]) -> str:
    """The sweep in words and tables, as markdown."""
    config, suite = sweep.config, sweep.config.suite
    made = collect_provenance(device=config.device)
    results = [r for trials in tried.values() for t in trials for r in t.results]
    concepts = ", ".join(dict.fromkeys(f"{r.dataset}/{r.concept}" for r in results))
    count = max(len(trials) for trials in tried.values())
    command = (
        f"casl-bench tune --methods {','.join(tried)} --datasets {','.join(config.datasets)} "
        f"--trials {count} --images {sweep.images} "
        f"--suite {suite.name} --seed {config.seed} --device {config.device} "
        + "".join(f"--plugin {path.name} " for path in config.plugins)
        + f"--out {config.out.name}"
    )
    dirty = " with local changes" if made.git_dirty else ""
    commit = f", commit {made.git_commit[:12]}{dirty}" if made.git_commit else ""
    parts = [
        "# Tuning sweep",
        f"```bash\n{command}\n```",
        f"Suite {suite.name} v{suite.version}, seed {config.seed}, data sets "
        f"{', '.join(config.datasets)}, tuning concepts {concepts}, {sweep.images} validation "
        f"images per concept, no test image. Made with casl_bench {made.package_version}{commit}, "
        f"torch {made.packages.get('torch', '?')} on {made.device} ({made.platform}).",
        "Score, in [0, 1]: the share of precise edits, mean over tolerances, at the strength with "
        "the most of them; mean over data sets, then concepts. Of what must stay as it is, other "
        "attributes are seen by the tuning classifier, which scores nothing else, and the "
        "background by its pixels. Precision, which decides between equals: T / (T + C) at the "
        f"smallest strength that flips {FLIP_GOAL:.0%} of the images, times flips / {FLIP_GOAL:g} "
        "where fewer flip; T is the target's change as asked (≥ 0), C the mean change of the other "
        "attributes, in standard deviations of the logits. A trial that fails on a concept scores "
        "0 there. Trial 0 is the default.",
        _table([_summary(name, trials) for name, trials in tried.items()]),
        "U-Net calls are in images. A fit that several trials share is made once; its calls are "
        "counted once. Seconds are those of this machine, fits and edits.",
        *(_fold(name, trials) for name, trials in tried.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(name: str, trials: Sequence[TrialSummary]) -> dict[str, str]:
    results = [r for t in trials for r in t.results]
    made = [r for r in results if not r.fit_reused and r.error is None]
    chosen = best(trials)
    return {
        "method": name,
        "trials": str(len(trials)) if search_space(name) else f"{len(trials)} (no search space)",
        "fits": f"{len(made):,}",
        "U-Net calls, fits": f"{sum(r.fit_unet_calls for r in made):,.0f}",
        "U-Net calls, edits": f"{sum(r.edit_unet_calls for r in results):,.0f}",
        "seconds": f"{sum(r.fit_seconds + r.edit_seconds for r in results):,.0f}",
        "failed": str(sum(t.failures for t in trials)),
        "default": f"{trials[0].score:.3f}",
        "best": f"{chosen.score:.3f}",
        "its precision": f"{chosen.precision:.3f}",
        "best trial": str(chosen.trial.number),
        "its settings": _words(chosen.trial.settings),
    }


def _fold(name: str, trials: Sequence[TrialSummary]) -> str:
    rows = []
    for tried in trials:
        row = {
            "trial": str(tried.trial.number),
            "score": f"{tried.score:.3f}",
            **{d: f"{s:.3f}" for d, s in tried.by_dataset.items() if len(tried.by_dataset) > 1},
            "precision": f"{tried.precision:.3f}",
            "flip rate": _mean([r.flip_rate for r in tried.results], 2),
            "T": _mean([r.target_change for r in tried.results], 2),
            "C": _mean([r.collateral for r in tried.results], 2),
            "strength": _mean([r.strength for r in tried.results], 2),
            "fit (s)": _mean([r.fit_seconds for r in tried.results], 1),
            "failed": str(tried.failures),
            "settings": _words(tried.trial.settings),
        }
        rows.append(row)
    faults = sorted({r.error for t in trials for r in t.results if r.error is not None})
    said = "".join(f"\n- {fault}" for fault in faults)
    table = _table(rows) + (f"\n\nFaults:\n{said}" if said else "")
    return f"<details>\n<summary>{name}: all trials</summary>\n\n{table}\n\n</details>"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    text: str = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
    return text


def _words(settings: dict[str, JsonValue]) -> str:
    return ", ".join(f"{k} = {json.dumps(v)}" for k, v in settings.items()) or "the default"


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [v for v in values if v is not None]
    return f"{fmean(known):.{digits}f}" if known else "—"
