"""One cell: fit a method on a concept, choose its strength, edit test images, score, record.

Nothing here is a number of a table: those are computed from the stored scores, see `analysis`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.analysis.measure import ScoredCell, response_of_table
from casl_bench.core.errors import InputError, message_of
from casl_bench.core.files import hash_bytes, hash_file, hash_json
from casl_bench.core.memory import GB, free_memory, is_out_of_memory
from casl_bench.core.text import visible
from casl_bench.domains.dataset import Concept, SupportsOracle
from casl_bench.domains.domain import Domain
from casl_bench.methods.method import (
    EditingMethod,
    Editor,
    FitCost,
    MethodInfo,
    SupportsDeltaH,
    SupportsFitKey,
    SupportsWeightDelta,
)
from casl_bench.metrics.bootstrap import RESAMPLES, bootstrap_interval
from casl_bench.models.backbone import Backbone
from casl_bench.results.edited_images import FILE_NAME, EditedImages
from casl_bench.results.provenance import collect_provenance
from casl_bench.results.record import (
    DIRECTIONS,
    PRECISE,
    CellRecord,
    Cost,
    ErrorInfo,
    FileRef,
    Level,
    Measurement,
    Provenance,
    SuiteRef,
)
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable
from casl_bench.runs.artifacts import Artifacts, InvertedSplit
from casl_bench.runs.fits import FitResources, Fitting, NotApplicableError, StoredFit
from casl_bench.runs.plan import (
    KEY_ARTIFACT,
    MATCHED_IMAGES,
    NULL_IMAGES,
    Cell,
    Sources,
    guides_of,
    info_of,
    make_method,
    pretrained_file,
    scoring_classifiers,
    with_sources,
)
from casl_bench.runs.progress import Stopwatch
from casl_bench.runs.scoring import DatasetScales, Scorers, to_8_bits
from casl_bench.runs.strength import (
    Goal,
    Responses,
    StrengthMatch,
    fixed_strength,
    goals_of,
    match,
    search_strengths,
)
from casl_bench.runs.suites import RunConfig
from casl_bench.runs.withheld import withheld
from casl_bench.sae.dictionary import needs_of

SHARE = 0.5
"""Of the free memory, what edits may take where no budget is given: networks need some, too."""

PICTURES = 4
"""Pictures in single precision that an image takes at one strength: x_t before a step and after it,
the edit, and what it is put together and checked with."""

_FLOAT = 4


class EditBatcher:
    """Splits the images of a cell into batches that fit into memory."""

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
        """Have `work` edit all images, batch by batch, given the places of a batch's images.

        A batch for which memory runs out is tried again with half as many images, and so are those
        after it. MemoryError or RuntimeError, as it came, where memory does not hold one
        micro-batch.
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


def common_fields(domain: Domain, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that all cells of a data set share."""
    card = domain.dataset.card
    return {
        "world": card.domain_kind,
        "dataset": card.name,
        "dataset_revision": card.revision,
        "suite": SuiteRef(
            name=config.suite.name, version=config.suite.version, quick=config.suite.quick
        ),
        "seed": config.seed,
        "attributes": card.attributes,
        "scorers": domain.scorer_hashes,
        "backbone": domain.backbone.weights_hash,
    }


def method_fields(name: str, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that say which method made it and how that is set."""
    method = make_method(name, config.suite)
    supervision = method.info.supervision
    if method.info.uses_sae and needs_of(config.sae) != "none":
        supervision = "labels"  # the dictionary was given them
    return {
        "method": name,  # a method of another package is known as package/name
        "method_version": method.info.version,
        "method_config": method.config.model_dump(mode="json"),
        "supervision": supervision,
        "control": method.info.control,
    }


def cell_fields(cell: Cell, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that say which cell it is of and how its method is set."""
    return {
        **method_fields(cell.method, config),
        "kind": "edit",
        "beside": cell.beside,
        "fit_seed": cell.fit_seed,
        "concept": cell.concept.name,
        "attribute": cell.concept.attribute,
    }


def provenance(
    config: RunConfig, watch: Stopwatch | None = None, spent: FitResources | None = None
) -> Provenance:
    """Where and when, with what a cell measured and what its fit took, whichever run made it."""
    watch, spent = watch or Stopwatch(), spent or FitResources()
    return collect_provenance(
        config.device,
        batch_size=config.batch_size,
        threads=torch.get_num_threads(),
        seconds=watch.seconds,
        unet_passes=watch.passes,
        fit_seconds=spent.seconds,
        fit_peak_memory_mb=spent.peak_memory_mb,
    )


def without_result(
    domain: Domain,
    config: RunConfig,
    cell: Cell,
    status: Literal["failed", "skipped"],
    error: BaseException,
) -> CellRecord:
    """The record of a cell that has no result, with the reason."""
    message = visible(message_of(error)) or type(error).__name__
    return CellRecord(
        **common_fields(domain, config),
        **cell_fields(cell, config),
        status=status,
        error=ErrorInfo(type=type(error).__name__, message=message),
        artifacts={KEY_ARTIFACT: cell.key},
        provenance=provenance(config),
    )


def over_images(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    unit: str,
    seed: int,
    resamples: int = RESAMPLES,
) -> Measurement:
    """A statistic of n >= 1 images (NaN: undefined) with its bootstrap interval."""
    value = statistic(np.arange(n))
    if not np.isfinite(value):
        return Measurement.undefined("these images do not tell", n, unit)
    low, high = bootstrap_interval(statistic, n, seed, resamples=resamples) or (None, None)
    return Measurement(status="ok", value=value, low=low, high=high, n=n, unit=unit)


SCORES_FILE, VALIDATION_FILE = "scores.npz", "validation.npz"
_MATCHED_BY: dict[str, type] = {"h_space": SupportsDeltaH, "weights": SupportsWeightDelta}
"""Edit space → what an editor must offer for a random control to be as large as its edit."""
_FIT_SHARE = 0.5
"""Of a cell's estimated work, the part that fitting takes."""


class PartnerFailedError(NotApplicableError):
    """The method that a control is matched to has no finished cell, perhaps but this once."""


@dataclass(frozen=True)
class Fitted:
    """A method fitted on a concept, with the strengths that it runs at.

    Attributes:
        match: its strengths, chosen on validation images or fixed.
        validation: scores of the validation images at every strength tried; None where none was.
    """

    editor: Editor
    fit: StoredFit
    match: StrengthMatch
    validation: ScoreTable | None = None


class EditCells:
    """Runs the edit cells of one data set and keeps their records."""

    def __init__(self, artifacts: Artifacts, store: RecordStore) -> None:
        self.artifacts, self.domain, self.config = artifacts, artifacts.domain, artifacts.config
        self.store = store
        self.scorers = Scorers(self.domain)
        self.fitting = Fitting(artifacts)
        self.scales = DatasetScales(artifacts, self.scorers)
        self.batcher = EditBatcher(
            self.config, self.domain.backbone, lambda line: artifacts.progress.note(line)
        )

    def run(self, cell: Cell) -> CellRecord:
        """Run one cell and write its record with scores and pictures.

        Raises NotApplicableError if a control does not apply to the method it is matched to, its
        kind PartnerFailedError if that method failed, InputError if the method's edits are of the
        wrong shape, not finite, or it fails.
        """
        watch = Stopwatch(self.artifacts.progress.costs)
        suite, concept = self.config.suite, cell.concept
        if cell.beside is None:
            fitted = self._fitted(cell, watch)
            count = suite.test_images_per_concept
        else:
            fitted = self._matched(cell, watch)
            count = min(MATCHED_IMAGES, suite.test_images_per_concept)
        split = self.artifacts.concept_split(
            self.artifacts.test, concept, count, present=info_of(cell.method).on_present
        )
        if not len(split.batch):
            raise NotApplicableError(f"no test image has '{concept.attribute}'")
        strengths, label = fitted.match.strengths, f"{cell.label}: edit"
        work = cell.work * (1 - _FIT_SHARE)
        table, images, calls = self._edit_and_score(
            fitted.editor, concept, split, strengths, watch, label, work
        )
        if isinstance(dataset := self.domain.dataset, SupportsOracle):
            oracle = to_8_bits(dataset.oracle(images.image_ids, concept.attribute))
            images = replace(images, oracle=oracle)
        files = {
            "scores": (SCORES_FILE, table.to_npz()),
            "images": (FILE_NAME, images.to_bytes()),
        }
        if fitted.validation is not None:
            files["validation_scores"] = (VALIDATION_FILE, fitted.validation.to_npz())
        refs = {
            field: FileRef(file=name, sha256=hash_bytes(content))
            for field, (name, content) in files.items()
        }
        edit_calls = calls / len(split.batch) / len(strengths)
        record = self._record(cell, fitted, table.strengths, watch, edit_calls)
        record = with_sources(record.model_copy(update=refs), cell.sources)
        self.store.write(record, dict(files.values()))
        return record

    def _fitted(self, cell: Cell, watch: Stopwatch) -> Fitted:
        info, work = info_of(cell.method), cell.work * _FIT_SHARE
        editor, fit = self.fitting.editor(cell.method, cell.concept, watch, work, cell.fit_seed)
        if info.control and not info.matched:
            return Fitted(editor, fit, fixed_strength(1.0))
        with watch.phase("choose strength"):
            found, table = self.match_strengths(editor, info, cell.concept)
        return Fitted(editor, fit, found, table)

    def _matched(self, cell: Cell, watch: Stopwatch) -> Fitted:
        """A control matched to a fitted method, at the strength chosen for that method."""
        assert cell.beside is not None
        place = CellKey(cell.dataset, "edit", cell.beside, None, cell.concept.name)
        partner = self.store.find(place)
        if partner is None or partner.status != "done" or partner.strength is None:
            raise PartnerFailedError(f"'{cell.beside}' has no edits of {cell.concept.name}")
        editor, _ = self.fitting.editor(cell.beside, cell.concept, watch)
        method = make_method(cell.method, self.config.suite)
        offer = _MATCHED_BY.get(method.info.space)
        if offer is not None and not isinstance(editor, offer):
            raise NotApplicableError(
                f"the editor of '{cell.beside}' does not show its edit ({offer.__name__})"
            )
        task = self.fitting.task(method, cell.concept, self.fitting.scratch(cell.key), editor)
        return Fitted(method.fit(task), StoredFit({}, FitCost()), fixed_strength(partner.strength))

    def run_trial(
        self,
        method: EditingMethod,
        concept: Concept,
        split: InvertedSplit,
        goals: Sequence[Goal],
        chosen: Callable[[Responses], float],
        watch: Stopwatch,
        work: float = 0.0,
    ) -> tuple[Responses, FitCost, float]:
        """Fit a method of any settings and score its edits of a split; no record is written.

        Returns the primary classifier's scores at the strengths of `search_strengths`, the cost of
        the fit, and the U-Net passes of all edits, in images.
        """
        label = f"{method.info.name} / {concept.name}: edit"
        editor, fit = self.fitting.fit(method, concept, watch, work * _FIT_SHARE)
        spent = 0.0

        def scored(strengths: tuple[float, ...]) -> ScoreTable:
            nonlocal spent
            table, _, calls = self._edit_and_score(
                editor, concept, split, strengths, watch, label,
                0.0 if spent else work * (1 - _FIT_SHARE),
            )  # fmt: skip
            spent += calls
            return table

        def seen(table: ScoreTable) -> Responses:
            return self._responses(table, concept, self.scorers.names[0])

        table = search_strengths(scored, seen, goals, chosen, self.config.suite)
        return seen(table), fit.cost, spent

    def _responses(self, table: ScoreTable, concept: Concept, classifier: str) -> Responses:
        spread, attribute = self.scales.spread(classifier), concept.attribute
        return {s: table.at(s, attribute, spread, classifier=classifier) for s in table.strengths}

    def _edit_and_score(
        self,
        editor: Editor,
        concept: Concept | None,
        split: InvertedSplit,
        strengths: tuple[float, ...],
        watch: Stopwatch,
        label: str,
        work: float,
    ) -> tuple[ScoreTable, EditedImages, float]:
        """Edits of a split, scored as `Scorers.table` does, and the U-Net passes of all of them."""
        with (
            self.artifacts.progress.task(label, len(split.batch), work, "images") as step,
            watch.phase("edit"),
            self.domain.backbone.count_calls() as calls,
        ):
            edits = self.edit_images(editor, split, strengths, step)
        with watch.phase("score"):
            table, images = self.scorers.table(concept, split.inversions, edits, strengths)
        return table, images, calls.unet_calls

    def match_strengths(
        self, editor: Editor, info: MethodInfo, concept: Concept
    ) -> tuple[StrengthMatch, ScoreTable]:
        """What a method runs at on test images, and the scores of validation images it rests on."""
        suite, split = self.config.suite, self.artifacts.concept_validation(concept)
        primary = scoring_classifiers(info, self.scorers.names)[0]
        full_effect = self.scales.full_effect(concept, primary)

        def scored(strengths: tuple[float, ...]) -> ScoreTable:
            edits = self.edit_images(editor, split, strengths, None)
            return self.scorers.table(concept, split.inversions, edits, strengths)[0]

        def seen(table: ScoreTable) -> Responses:
            return self._responses(table, concept, primary)

        table = search_strengths(
            scored,
            seen,
            goals_of(suite, full_effect),
            lambda responses: match(responses, suite, full_effect).strength,
            suite,
        )
        found = match(seen(table), suite, full_effect)
        found = found.with_full() if info.control else found
        best = self._most_precise(table, concept, scoring_classifiers(info, self.scorers.names))
        return (found if best is None else replace(found, levels=(*found.levels, best))), table

    def _most_precise(
        self, table: ScoreTable, concept: Concept, classifiers: Sequence[str]
    ) -> Level | None:
        """The strength with the most precise edits of validation images; None where none has any.

        Of equally good ones the least. It is run on test images whatever effect it has there.
        """
        scales = self.scales.reference_scales
        cell = ScoredCell(table, concept.attribute, tuple(classifiers), scales)
        found = response_of_table(cell)
        best = max(found, key=lambda s: (found[s], -s), default=None)
        if best is None or not found[best]:
            return None
        return Level(
            name=PRECISE, goal=found[best], unit="share", status="reached", strength=best,
            largest=found[best],
        )  # fmt: skip

    def edit_images(
        self, editor: Editor, split: InvertedSplit, strengths: tuple[float, ...], step: Any
    ) -> Tensor:
        """[S, n, 3, H, W], checked; as many images at once as memory holds."""
        hidden = self.fitting.hidden.inversions(split.inversions)

        def edit(places: range) -> Tensor:
            chunk = hidden.take(places)
            with withheld():
                edits = editor.edit(chunk, strengths)
            expected = (len(strengths), *chunk.x_0.shape)
            if tuple(edits.shape) != expected:
                raise InputError(
                    f"edits have shape {list(edits.shape)}, expected {list(expected)}",
                    hint="Editor.edit returns [strengths, images, 3, H, W]",
                )
            if not bool(torch.isfinite(edits).all()):
                raise InputError("the method's edits hold NaN or infinity")
            if step is not None:
                step(len(chunk))
            return edits

        return torch.cat(self.batcher.edit(len(split.batch), len(strengths), edit), dim=1)

    def random_direction(
        self, name: str, draw: int, key: str, sources: Sources, work: float
    ) -> None:
        """One random direction on the images that serve every concept, over a grid of strengths.

        What it does depends on no concept, so it is run once and scored on all attributes. `draw`
        says which of the suite's random directions it is, `key` the key of its record.
        """
        watch = Stopwatch(self.artifacts.progress.costs)
        test, strengths = self.artifacts.test, self.config.suite.strengths
        # Its fit reads no word or label of a concept.
        any_concept = Concept("every_concept", "", "", self.domain.dataset.card.attributes[0])
        editor, fit = self.fitting.editor(name, any_concept, watch, fit_seed=draw)
        rows = range(min(NULL_IMAGES, len(test.batch)))
        split = InvertedSplit(test.batch.take(rows), test.inversions.take(rows), None)
        table, images, calls = self._edit_and_score(
            editor, None, split, strengths, watch, f"{name} {draw + 1}", work
        )
        scores, pictures = table.to_npz(), images.to_bytes()
        record = CellRecord(
            **common_fields(self.domain, self.config),
            **method_fields(name, self.config),
            kind="null",
            fit_seed=draw,
            strengths=strengths,
            judges=self.scorers.names,
            artifacts={KEY_ARTIFACT: key, DIRECTIONS: str(self.config.suite.random_draws)},
            scores=FileRef(file=SCORES_FILE, sha256=hash_bytes(scores)),
            images=FileRef(file=FILE_NAME, sha256=hash_bytes(pictures)),
            cost=Cost(edit_unet_calls=calls / len(rows) / len(strengths)),
            provenance=provenance(self.config, watch, fit.resources),
        )
        self.store.write(with_sources(record, sources), {SCORES_FILE: scores, FILE_NAME: pictures})

    def _record(
        self,
        cell: Cell,
        fitted: Fitted,
        strengths: tuple[float, ...],
        watch: Stopwatch,
        edit_calls: float,
    ) -> CellRecord:
        config, concept, found = self.config, cell.concept, fitted.match
        method = make_method(cell.method, config.suite)
        artifacts = {KEY_ARTIFACT: cell.key}
        if method.info.uses_sae:
            artifacts["sae"] = self.artifacts.sae.content_hash
        weights = pretrained_file(config, method, concept)
        if weights is not None:
            artifacts["pretrained"] = hash_file(weights)
        if isinstance(method, SupportsFitKey):
            artifacts["fit"] = hash_json([method.fit_key()])
        return CellRecord(
            **common_fields(self.domain, config),
            **cell_fields(cell, config),
            strength=found.strength,
            strength_chosen_on="validation" if found.levels or cell.beside else "given",
            strengths=strengths,
            levels=found.levels,
            full_effect=found.full_effect,
            monotone=found.monotone,
            judges=scoring_classifiers(method.info, self.scorers.names),
            guided_by=guides_of(method.info, self.scorers.names),
            artifacts=artifacts,
            cost=Cost(
                parameters=fitted.fit.cost.parameters,
                unet_calls=fitted.fit.cost.unet_calls,
                edit_unet_calls=edit_calls,
            ),
            provenance=provenance(config, watch, fitted.fit.resources),
        )
