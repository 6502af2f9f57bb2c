"""One cell: fit a method on a concept, choose its strength, edit test images, score, record."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_bytes, hash_file, hash_json
from casl_bench.core.memory import GB, free_memory, is_out_of_memory
from casl_bench.domains.dataset import Concept, SupportsOracle
from casl_bench.domains.domain import World
from casl_bench.methods.method import (
    METHODS,
    EditingMethod,
    Editor,
    FitCost,
    MethodInfo,
    SupportsDeltaH,
    SupportsFitKey,
    SupportsWeightDelta,
)
from casl_bench.metrics.bootstrap import RESAMPLES, bootstrap_interval
from casl_bench.metrics.epr import EPR_PLUS_INFO
from casl_bench.metrics.metric import METRICS, MetricInfo, metric_identity
from casl_bench.models.backbone import Backbone
from casl_bench.results.edited_images import FILE_NAME, EditedImages
from casl_bench.results.provenance import collect_provenance
from casl_bench.results.record import (
    Cost,
    CurvePoint,
    ErrorInfo,
    FileRef,
    Measurement,
    Provenance,
    RunRecord,
    SuiteRef,
)
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable
from casl_bench.runs.artefacts import Artefacts, InvertedSplit
from casl_bench.runs.fits import FitSpent, Fitting, NotApplicableError
from casl_bench.runs.lacks import lacks
from casl_bench.runs.measuring import (
    OVER_RANDOM,
    PRECISION_AREA,
    View,
    area_measurement,
    drift_by_attribute,
    drift_margins,
    flags,
    level_result,
    measurements,
    not_reached,
    over_random,
)
from casl_bench.runs.plan import (
    KEY_ARTEFACT,
    Cell,
    guides_of,
    info_of,
    make_method,
    pretrained_file,
    with_sources,
)
from casl_bench.runs.progress import Progress, Stopwatch
from casl_bench.runs.scoring import Scorers, Yardstick, to_8_bits
from casl_bench.runs.strength import Matching, given, headline_name, match
from casl_bench.runs.suites import RunConfig

# How many images are edited at once: as many as memory holds, and fewer where it does not.


SHARE = 0.5
"""Of the free memory, what edits may take where no budget is given: networks need some, too."""

PICTURES = 4
"""Pictures in single precision that an image takes at one strength: x_t before a step and after it,
the edit, and what it is put together and checked with."""

_FLOAT = 4


class AtOnce:
    """Splits the images of a cell into batches that fit into memory.

    Args:
        config: of the run: its memory budget, batch size and processes.
        backbone: the noise predictor; no batch is less than its micro-batch.
        note: says something to the user.
    """

    def __init__(self, config: RunConfig, backbone: Backbone, note: Callable[[str], None]) -> None:
        self._least, self._note = backbone.micro_batch, note
        self._most = config.batch_size
        if config.memory_budget is None:
            budget = SHARE * free_memory(config.device) / config.jobs
        else:
            budget = config.memory_budget * GB
        self._rows = int(budget / (PICTURES * _FLOAT * 3 * backbone.image_size**2))

    def images(self, strengths: int) -> int:
        """Images of a batch that is edited at so many strengths."""
        held = self._rows // strengths // self._least * self._least
        held = max(held, self._least)
        return held if self._most is None else min(held, self._most)

    def edit(self, count: int, strengths: int, work: Callable[[range], Tensor]) -> list[Tensor]:
        """Have all images edited, batch by batch.

        A batch for which memory runs out is tried again with half as many images, and so are those
        after it.

        Args:
            count: images.
            strengths: of each.
            work: edits the images at these places.

        Raises:
            MemoryError, RuntimeError: where memory does not hold one micro-batch, as it came.
        """
        parts: list[Tensor] = []
        start = 0
        while start < count:
            places = range(start, min(start + self.images(strengths), count))
            part = self._tried(places, work)
            if part is None:
                self._halve(len(places), strengths)
            else:
                parts.append(part)
                start = places.stop
        return parts

    def _tried(self, places: range, work: Callable[[range], Tensor]) -> Tensor | None:
        """None where memory ran out and fewer can be tried."""
        try:
            return work(places)
        except Exception as error:
            if len(places) <= self._least or not is_out_of_memory(error):
                raise
            return None

    def _halve(self, images: int, strengths: int) -> None:
        # Only here is the error gone, and with it what its frames held.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._rows = images * strengths // 2
        self._note(
            f"out of memory with {images} images at {strengths} strengths: going on with "
            f"{self.images(strengths)}"
        )


# What records of all kinds are filled with.


def common_fields(world: World, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that all cells of a data set share."""
    card = world.dataset.card
    return {
        "world": card.world,
        "dataset": card.name,
        "dataset_revision": card.revision,
        "suite": SuiteRef(
            name=config.suite.name, version=config.suite.version, quick=config.suite.quick
        ),
        "seed": config.seed,
        "attributes": card.attributes,
        "scorers": world.scorer_hashes,
        "backbone": world.backbone.weights_hash,
    }


def cell_fields(cell: Cell, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that say which cell it is of and how its method is set."""
    method = make_method(cell.method, config.suite)
    return {
        "kind": "edit",
        "method": cell.method,
        "method_version": method.info.version,
        "method_config": method.config.model_dump(mode="json"),
        "supervision": method.info.supervision,
        "control": cell.control,
        "beside": cell.beside,
        "fit_seed": cell.fit_seed,
        "concept": cell.concept.name,
    }


def provenance(
    config: RunConfig, watch: Stopwatch | None = None, spent: FitSpent | None = None
) -> Provenance:
    """Where and when.

    Args:
        config: of the run.
        watch: of this cell; None where nothing was measured.
        spent: by the fit of the cell's method, whoever made it.
    """
    found = collect_provenance(
        device=config.device,
        batch_size=config.batch_size,
        threads=torch.get_num_threads(),
        seconds={} if watch is None else watch.seconds,
        unet_passes={} if watch is None else watch.passes,
    )
    if spent is None:
        return found
    return found.model_copy(
        update={"fit_seconds": spent.seconds, "fit_peak_memory_mb": spent.peak_memory_mb}
    )


def without_result(
    world: World,
    config: RunConfig,
    cell: Cell,
    status: Literal["failed", "skipped"],
    error: Exception,
) -> RunRecord:
    """The record of a cell that has come to nothing, with the reason."""
    message = " ".join(str(error).split()) or type(error).__name__
    return RunRecord(
        **common_fields(world, config),
        **cell_fields(cell, config),
        status=status,
        error=ErrorInfo(type=type(error).__name__, message=message),
        artefacts={KEY_ARTEFACT: cell.key},
        provenance=provenance(config),
    )


def metric_versions() -> dict[str, int]:
    """Metric name → version."""
    return {info.name: info.version for info in _metric_infos()}


def metric_identities(attributes: Sequence[str]) -> dict[str, str]:
    """Metric name → hash of what must be equal for two of its numbers to be comparable."""
    return {info.name: metric_identity(info, attributes) for info in _metric_infos()}


def _metric_infos() -> list[MetricInfo]:
    return [METRICS.create(name).info for name in METRICS.names()] + [EPR_PLUS_INFO]


def over_images(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    unit: str,
    seed: int,
    resamples: int = RESAMPLES,
) -> Measurement:
    """A number of n images with its bootstrap interval.

    Args:
        statistic: places of images, repeats included → number, NaN where undefined.
        n: how many images there are, >= 1.
        unit: of the number.
        seed: of the resamples.
        resamples: how many.
    """
    value = statistic(np.arange(n))
    if not np.isfinite(value):
        return Measurement.undefined("these images do not tell", n, unit)
    low, high = bootstrap_interval(statistic, n, seed, resamples=resamples) or (None, None)
    return Measurement(status="ok", value=value, low=low, high=high, n=n, unit=unit)


SCORES_FILE = "scores.csv"
_MATCHED_BY: dict[str, type] = {"h_space": SupportsDeltaH, "weights": SupportsWeightDelta}
"""Edit space → what an editor must offer for a random control to be as large as its edit."""
_FIT_SHARE = 0.5
"""Of a cell's estimated work, the part that fitting takes."""


class PartnerFailedError(NotApplicableError):
    """What a control stands beside fails, perhaps but this once."""


@dataclass(frozen=True)
class Fitted:
    """A method fitted on a concept, with what it runs at.

    Attributes:
        editor: ready to edit.
        cost: of the fit, whoever made it.
        matching: its strengths, chosen on validation images or given.
        curve: measurements of validation images at every strength of the grid.
        spent: time and memory of the fit, whoever made it; None of a control beside another.
    """

    editor: Editor
    cost: FitCost
    matching: Matching
    curve: tuple[CurvePoint, ...] = ()
    spent: FitSpent | None = None


@dataclass(frozen=True)
class TriedOut:
    """Edits of a method that is not part of the run's plan.

    Attributes:
        table: their scores at every strength of the suite.
        fit_cost: of the fit, whoever made it.
        edit_unet_calls: spent on all of them, in images.
    """

    table: ScoreTable
    fit_cost: FitCost
    edit_unet_calls: float


class EditCells:
    """Runs the edit cells of one data set.

    Args:
        artefacts: what all cells share.
        store: where records go.
        progress: shown meanwhile.
    """

    def __init__(self, artefacts: Artefacts, store: RecordStore, progress: Progress) -> None:
        self.artefacts, self.world, self.config = artefacts, artefacts.world, artefacts.config
        self.store, self.progress = store, progress
        self.scorers = Scorers(self.world)
        self.fitting = Fitting(artefacts, progress)
        self.yardstick = Yardstick(artefacts, self.scorers)
        self.at_once = AtOnce(
            self.config, self.world.backbone, lambda line: self.progress.note(line)
        )
        self._fitted: dict[tuple[str, str, int], Fitted] = {}
        self._null: dict[Concept, list[tuple[ScoreTable, float]]] = {}

    def run(self, cell: Cell) -> RunRecord:
        """Run one cell and write its record with scores and pictures.

        Raises:
            NotApplicableError: if a control does not apply to the method it stands beside.
            PartnerFailedError: if that method fails.
            InputError: if the method's edits are of the wrong shape, not finite, or it fails.
        """
        watch = Stopwatch(self.progress.costs)
        suite, concept = self.config.suite, cell.concept
        if cell.beside is None:
            work = cell.work * _FIT_SHARE
            fitted = self.fitted(cell.method, concept, watch, work, cell.fit_seed)
        else:
            fitted = self._beside(cell, watch)
        present = info_of(cell.method).on_present
        split = self.artefacts.concept_split(
            self.artefacts.test, concept, suite.test_images_per_concept, present=present
        )
        if not len(split.batch):
            raise NotApplicableError(f"no test image has '{concept.attribute}'")
        strengths = fitted.matching.strengths
        count = len(split.batch)
        with (
            self.progress.task(f"{cell.label}: edit", count, cell.work * (1 - _FIT_SHARE)) as step,
            watch.phase("edit"),
            self.world.backbone.count_calls() as calls,
        ):
            edits = self.edit_images(fitted.editor, split, strengths, step)
        with watch.phase("score"):
            table, images = self.scorers.table(concept, split.inversions, edits, strengths)
        edit_calls = calls.unet_calls / count / len(strengths)
        record = with_sources(self._record(cell, fitted, table, watch, edit_calls), cell.sources)
        files = {
            SCORES_FILE: table.to_csv().encode(),
            FILE_NAME: self._with_oracle(images, concept),
        }
        refs = {"scores": SCORES_FILE, "images": FILE_NAME}
        for name, file in refs.items():
            ref = FileRef(file=file, sha256=hash_bytes(files[file]))
            record = record.model_copy(update={name: ref})
        self.store.write(record, files)
        return record

    def fitted(
        self, name: str, concept: Concept, watch: Stopwatch, work: float = 0.0, fit_seed: int = 0
    ) -> Fitted:
        """The method fitted on a concept, with what it runs at."""
        place = (name, concept.name, fit_seed)
        if place not in self._fitted:
            editor, fit = self.fitting.editor(name, concept, watch, work, fit_seed)
            info = info_of(name)
            matching: Matching = given(1.0)
            curve: tuple[CurvePoint, ...] = ()
            if info.matched or not info.control:
                with watch.phase("choose strength"):
                    matching, curve = self.match_strengths(editor, info, concept)
            self._fitted = {place: Fitted(editor, fit.cost, matching, curve, fit.spent)}
        return self._fitted[place]

    def try_out(
        self,
        method: EditingMethod,
        concept: Concept,
        split: InvertedSplit,
        watch: Stopwatch,
        work: float = 0.0,
    ) -> TriedOut:
        """Fit a method of any settings and score its edits of a split; no record is written.

        Raises:
            InputError: if the method's edits are of the wrong shape, not finite, or it fails.
        """
        label, count = f"{method.info.name} / {concept.name}", len(split.batch)
        strengths = self.config.suite.strengths
        editor, fit = self.fitting.fit(method, concept, watch, work * _FIT_SHARE)
        with (
            self.progress.task(f"{label}: edit", count, work * (1 - _FIT_SHARE)) as step,
            watch.phase("edit"),
            self.world.backbone.count_calls() as calls,
        ):
            edits = self.edit_images(editor, split, strengths, step)
        with watch.phase("score"):
            table, _ = self.scorers.table(concept, split.inversions, edits, strengths)
        return TriedOut(table, fit.cost, calls.unet_calls)

    def _beside(self, cell: Cell, watch: Stopwatch) -> Fitted:
        """A control matched to a fitted method, at the strength chosen for that method."""
        assert cell.beside is not None
        try:
            partner = self.fitted(cell.beside, cell.concept, watch)
        except InvalidBenchmarkError:
            raise
        except Exception as error:  # told in full by the method's own cell
            raise PartnerFailedError(f"'{cell.beside}' itself fails: {error}") from error
        method = make_method(cell.method, self.config.suite)
        offer = _MATCHED_BY.get(method.info.space)
        if offer is not None and not isinstance(partner.editor, offer):
            raise NotApplicableError(
                f"the editor of '{cell.beside}' does not show its edit ({offer.__name__})"
            )
        scratch = self.fitting.scratch(cell.key)
        task = self.fitting.task(method, cell.concept, scratch, partner.editor)
        return Fitted(method.fit(task), FitCost(), given(partner.matching.strength))

    def match_strengths(
        self, editor: Editor, info: MethodInfo, concept: Concept
    ) -> tuple[Matching, tuple[CurvePoint, ...]]:
        """What a method runs at on test images, and how validation images respond.

        The strength that the grid leads to for the headline is run too, and the crossings found
        again: where a method has its effect far below the grid's steps, a straight line misses it.
        A random draw, whose effect is but a unit, is spared that, and sized on fewer images.
        """
        suite, split = self.config.suite, self.artefacts.concept_validation(concept)
        if info.draws:
            few = range(suite.draw_validation_images)
            split = InvertedSplit(split.batch.take(few), split.inversions.take(few), None)
        views: dict[float, View] = {}

        def respond(strengths: tuple[float, ...]) -> Matching:
            edits = self.edit_images(editor, split, strengths, None)
            table, _ = self.scorers.table(concept, split.inversions, edits, strengths)
            view = self.yardstick.view(table, concept, info)
            views.update(dict.fromkeys(strengths, view))
            return match(
                {s: views[s].at(s) for s in views},
                suite,
                self.yardstick.full_effect(concept, view.judges[0]),
                unsigned=info.draws,
            )

        matching = respond(suite.strengths)
        if matching.strength not in views and not info.draws:
            matching = respond((matching.strength,))
        curve = tuple(
            CurvePoint(strength=s, measurements=measurements(views[s], s, self.config.seed))
            for s in sorted(views)
        )
        return matching.with_full() if info.control and not info.draws else matching, curve

    def edit_images(
        self, editor: Editor, split: InvertedSplit, strengths: tuple[float, ...], step: Any
    ) -> Tensor:
        """[S, n, 3, H, W], checked; as many images at once as memory holds."""

        def edit(places: range) -> Tensor:
            chunk = split.inversions.take(places)
            edits = editor.edit(chunk, strengths)
            expected = (len(strengths), *chunk.x_0.shape)
            if tuple(edits.shape) != expected:
                raise InputError(
                    f"edits have shape {list(edits.shape)}, expected {list(expected)}",
                    mend="Editor.edit returns [strengths, images, 3, H, W]",
                )
            if not bool(torch.isfinite(edits).all()):
                raise InputError("the method's edits hold NaN or infinity")
            if step is not None:
                step(len(chunk))
            return edits

        return torch.cat(self.at_once.edit(len(split.batch), len(strengths), edit), dim=1)

    def _record(
        self, cell: Cell, fitted: Fitted, table: ScoreTable, watch: Stopwatch, edit_calls: float
    ) -> RunRecord:
        config, concept, matching = self.config, cell.concept, fitted.matching
        method = make_method(cell.method, config.suite)
        view = self.yardstick.view(table, concept, method.info)
        null = (
            self.null(cell.dataset, cell.concept)
            if cell.beside is None and not method.info.draws
            else []
        )
        levels, at = (
            tuple(level_result(view, level, config.seed, null) for level in matching.levels),
            measurements(view, matching.strength, config.seed, null),
        )
        headline = next((x for x in levels if x.name == headline_name(config.suite)), None)
        if headline is not None and headline.status == "not_reached":
            at |= not_reached(headline, at)
        if not cell.control:
            at |= {OVER_RANDOM: self._over_random(cell, view, matching.strength)}
        if len(levels) > 1:
            at |= {PRECISION_AREA: area_measurement(view, config.suite, matching, config.seed)}
        artefacts = {KEY_ARTEFACT: cell.key}
        if method.info.uses_sae:
            artefacts["sae"] = self.artefacts.sae.content_hash
        weights = pretrained_file(config, method, concept)
        if weights is not None:
            artefacts["pretrained"] = hash_file(weights)
        if isinstance(method, SupportsFitKey):
            artefacts["fit"] = hash_json([method.fit_key()])
        artefacts |= lacks(self.store, cell)
        card = self.world.dataset.card
        return RunRecord(
            **common_fields(self.world, config),
            **cell_fields(cell, config),
            strength=matching.strength,
            strength_chosen_on="validation" if matching.levels or cell.beside else "given",
            strengths=table.strengths,
            measurements=at,
            levels=levels,
            full_effect=matching.full_effect,
            curve=fitted.curve,
            curve_on="validation",
            judges=view.judges,
            guided_by=guides_of(method.info, self.scorers.names),
            drift=drift_by_attribute(view, matching.strength, card.attributes),
            drift_margin=drift_margins(view, matching.strength, card.attributes),
            metric_versions=metric_versions(),
            metric_identities=metric_identities(
                [name for name in card.attributes if name != concept.attribute]
            ),
            artefacts=artefacts,
            cost=Cost(
                parameters=fitted.cost.parameters,
                unet_calls=fitted.cost.unet_calls,
                edit_unet_calls=edit_calls,
            ),
            flags=flags(
                at,
                headline,
                matching,
                view,
                pretrained=weights is not None,
                guided=bool(method.info.guided_by),
            ),
            provenance=provenance(config, watch, fitted.spent),
        )

    def null(self, dataset: str, concept: Concept) -> list[tuple[ScoreTable, float]]:
        """Scores of a concept's random draws, once these have run, with the strengths they ran at.

        Empty unless all of the suite's draws are there. Read once a concept.
        """
        if concept not in self._null and (found := self._read_null(dataset, concept)):
            self._null = {concept: found}
        return self._null.get(concept, [])

    def _read_null(self, dataset: str, concept: Concept) -> list[tuple[ScoreTable, float]]:
        found = []
        names = [name for name in METHODS if info_of(name).draws]
        for name in names:
            for draw in range(self.config.suite.random_draws):
                key = CellKey(dataset, "edit", name, None, concept.name, draw)
                record = self.store.find(key)
                scores = None if record is None else self.store.scores(record)
                if record is None or scores is None or record.strength is None:
                    return []  # a null of fewer draws is another null
                found.append((scores, record.strength))
        return found

    def _over_random(self, cell: Cell, view: View, strength: float) -> Measurement:
        """EPR over that of the random control of its space, whose cell has run before this one."""
        if not cell.matched:
            return Measurement.missing("there is no random control beside it")
        key = CellKey(cell.dataset, "edit", cell.matched[0], cell.method, cell.concept.name)
        record = self.store.find(key)
        if record is None or record.status != "done" or record.strength != strength:
            return Measurement.missing("no random control was run beside it")
        scores = self.store.scores(record)
        if scores is None:
            return Measurement.missing("the random control's scores are not there")
        return over_random(view, scores, strength, self.config.seed)

    def _with_oracle(self, images: EditedImages, concept: Concept) -> bytes:
        dataset = self.world.dataset
        oracle = None
        if isinstance(dataset, SupportsOracle):
            oracle = to_8_bits(dataset.oracle(images.image_ids, concept.attribute))
        return EditedImages(
            images.image_ids,
            images.strengths,
            images.source,
            images.reconstruction,
            images.edits,
            oracle,
        ).to_bytes()
