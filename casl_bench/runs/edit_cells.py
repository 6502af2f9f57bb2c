"""One cell: fit a method on a concept, choose its strength, edit test images, score, record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from casl_bench.core.content_hash import hash_bytes, hash_file, hash_json
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.seeding import generator
from casl_bench.images.dataset import Concept, SupportsOracle
from casl_bench.methods.method import (
    EditingMethod,
    Editor,
    EditTask,
    FitCost,
    SupportsDeltaH,
    SupportsFitKey,
    SupportsPretrained,
    SupportsWeightDelta,
)
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_success import drift
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.edited_images import FILE_NAME, EditedImages
from casl_bench.records.record import (
    Cost,
    CurvePoint,
    FileRef,
    Measurement,
    RunRecord,
)
from casl_bench.records.record_store import CellKey, RecordStore
from casl_bench.runs.artefacts import Artefacts, InvertedSplit
from casl_bench.runs.fits import (
    FitSpent,
    FitStore,
    StoredFit,
    fit_key,
    given_fit,
    make_fit,
)
from casl_bench.runs.plan import KEY_ARTEFACT, Cell, make_method, pretrained_file
from casl_bench.runs.progress import Progress
from casl_bench.runs.record_parts import (
    OVER_RANDOM,
    Stopwatch,
    all_measurements,
    cell_fields,
    common_fields,
    metric_versions,
    over_random,
    provenance,
)
from casl_bench.runs.scoring import Scorers, to_8_bits
from casl_bench.runs.strength_selection import choose_strength

SCORES_FILE = "scores.csv"
_MATCHED_BY: dict[str, type] = {"h_space": SupportsDeltaH, "weights": SupportsWeightDelta}
"""Edit space → what an editor must offer for a random control to be as large as its edit."""
_FIT_SHARE = 0.5
"""Of a cell's estimated work, the part that fitting takes."""


@dataclass(frozen=True)
class Fitted:
    """A method fitted on a concept, with its strength.

    Attributes:
        editor: ready to edit.
        cost: of the fit, whoever made it.
        strength: chosen on validation images.
        spent: time and memory of the fit, whoever made it; None of a control beside another.
    """

    editor: Editor
    cost: FitCost
    strength: float
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


class NotApplicableError(InputError):
    """What is asked for is not to be had here: the cell is skipped, not failed.

    Such as labels that nobody has, or something for a control to stand beside.
    """


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
        name = self.world.dataset.card.name
        self.fits = FitStore(self.config.out / "artefacts" / name / "fits")
        self._fitted: dict[tuple[str, str], Fitted] = {}

    @cached_property
    def spreads(self) -> Array:
        """[K, A] standard deviation of each classifier's logits over the training images."""
        images = self.artefacts.train.inversions.x_0
        logits: Array = self.scorers.logits(images)
        return np.asarray(logits.std(axis=1))

    def run(self, cell: Cell) -> RunRecord:
        """Run one cell and write its record with scores and pictures.

        Raises:
            NotApplicableError: if a control does not apply to the method it stands beside.
            InputError: if the method's edits are of the wrong shape, not finite, or it fails.
        """
        watch = Stopwatch()
        suite, concept = self.config.suite, cell.concept
        split = self._split(self.artefacts.test, concept, suite.test_images_per_concept)
        if cell.beside is None:
            fitted = self.fitted(cell.method, concept, watch, cell.work * _FIT_SHARE)
            strengths = (1.0,) if cell.control else suite.strengths
        else:
            fitted = self._beside(cell, watch)
            strengths = (fitted.strength,)
        count = len(split.batch)
        with (
            self.progress.task(f"{cell.label}: edit", count, cell.work * (1 - _FIT_SHARE)) as step,
            watch.phase("edit"),
            self.world.backbone.count_calls() as calls,
        ):
            edits = self._edit(fitted.editor, split, strengths, step)
        with watch.phase("score"):
            table, images = self.scorers.table(concept, split.inversions, edits, strengths)
        record = self._record(cell, fitted, table, watch, calls.unet_calls / count / len(strengths))
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

    def fitted(self, name: str, concept: Concept, watch: Stopwatch, work: float = 0.0) -> Fitted:
        """The method fitted on a concept: from memory, from the run folder, or fitted now."""
        known = self._fitted.get((name, concept.name))
        if known is not None:
            return known
        method = make_method(name, self.config.suite)
        editor, fit = self._fit(method, concept, watch, work)
        strength = 1.0
        if not method.info.control:
            with watch.phase("choose strength"):
                strength = self._choose_strength(editor, concept)
        fitted = Fitted(editor, fit.cost, strength, fit.spent)
        self._fitted = {(name, concept.name): fitted}  # one method's weights at a time
        return fitted

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
        editor, fit = self._fit(method, concept, watch, work * _FIT_SHARE)
        with (
            self.progress.task(f"{label}: edit", count, work * (1 - _FIT_SHARE)) as step,
            watch.phase("edit"),
            self.world.backbone.count_calls() as calls,
        ):
            edits = self._edit(editor, split, strengths, step)
        with watch.phase("score"):
            table, _ = self.scorers.table(concept, split.inversions, edits, strengths)
        return TriedOut(table, fit.cost, calls.unet_calls)

    def _fit(
        self, method: EditingMethod, concept: Concept, watch: Stopwatch, work: float
    ) -> tuple[Editor, StoredFit]:
        artefacts, info = self.artefacts, method.info
        inputs: dict[str, Any] = {
            "stage": 2,
            "dataset": [self.world.dataset.card.name, self.world.dataset.card.revision],
            "world": self.world.backbone.weights_hash,
            "guide": self.world.guide_clip.weights_hash,
            "concept": [concept.name, concept.source_prompt, concept.target_prompt],
            "sae": artefacts.sae.content_hash if info.uses_sae else None,
            "train": [artefacts.suite.train_images, list(artefacts.timesteps)],
            "validation": artefacts.suite.validation_images if info.uses_validation else None,
            "seed": self.config.seed,
            "device": self.config.device.split(":")[0],
        }
        weights = pretrained_file(self.config, method, concept)
        if weights is not None:
            inputs["pretrained"] = hash_file(weights)
        key = fit_key(method, hash_json(inputs))
        task = self._task(method, concept, key)
        with self.progress.task(f"{info.name} / {concept.name}: fit", 1, work), watch.phase("fit"):
            made: list[Editor] = []

            def make() -> StoredFit:
                if weights is not None:
                    assert isinstance(method, SupportsPretrained)  # the plan has asked
                    return given_fit(method, weights)
                editor, fit = make_fit(method, task, self.config.device)
                made.append(editor)
                return fit

            stored = self.fits.get(key, make)
            editor = made[0] if made else method.restore(task, stored.state)
        return editor, stored

    def _task(
        self, method: EditingMethod, concept: Concept, key: str, beside: Editor | None = None
    ) -> EditTask:
        """What the method may see: exactly what it declares."""
        info, artefacts, world = method.info, self.artefacts, self.world
        labels = None
        if info.supervision == "labels":
            column = world.dataset.card.attributes.index(concept.attribute)
            if artefacts.train.batch.attributes is None:
                raise NotApplicableError(f"'{info.name}' needs labels, which this data set has not")
            labels = artefacts.train.batch.attributes[:, column]
        oracle = None
        if info.needs_oracle:
            if not isinstance(world.dataset, SupportsOracle):
                raise NotApplicableError("this data set's factors are unknown: no oracle")
            oracle = world.dataset.oracle
        validation = None
        if info.uses_validation:
            count = artefacts.suite.validation_images
            validation = self._split(artefacts.validation, concept, count).inversions
        assert artefacts.train.trajectories is not None  # the training split keeps them
        # The key leaves the method out: entrants are given the same random numbers.
        rng = generator(self.config.seed, "fit", world.dataset.card.name, concept.name)
        return EditTask(
            concept=concept,
            backbone=world.backbone,
            train=artefacts.train.inversions,
            labels=labels,
            trajectories=artefacts.train.trajectories,
            saes=artefacts if info.uses_sae else None,
            guide_clip=world.guide_clip if info.supervision == "text" else None,
            generator=rng,
            workspace=self.fits.workspace(key),
            validation=validation,
            oracle=oracle,
            beside=beside,
        )

    def _beside(self, cell: Cell, watch: Stopwatch) -> Fitted:
        """A control matched to a fitted method, at the strength chosen for that method."""
        assert cell.beside is not None
        try:
            partner = self.fitted(cell.beside, cell.concept, watch)
        except InvalidBenchmarkError:
            raise
        except Exception as error:  # told in full by the method's own cell
            raise NotApplicableError(f"'{cell.beside}' itself fails: {error}") from error
        method = make_method(cell.method, self.config.suite)
        offer = _MATCHED_BY.get(method.info.space)
        if offer is not None and not isinstance(partner.editor, offer):
            raise NotApplicableError(
                f"the editor of '{cell.beside}' does not show its edit ({offer.__name__})"
            )
        task = self._task(method, cell.concept, cell.key, partner.editor)
        return Fitted(method.fit(task), FitCost(), partner.strength)

    def _choose_strength(self, editor: Editor, concept: Concept) -> float:
        suite = self.config.suite
        split = self._split(self.artefacts.validation, concept, suite.validation_images)
        edits = self._edit(editor, split, suite.strengths, None)
        table, _ = self.scorers.table(concept, split.inversions, edits, suite.strengths)
        return choose_strength(table, concept.attribute, self.spreads[0])

    def _split(self, split: InvertedSplit, concept: Concept, count: int) -> InvertedSplit:
        return self.artefacts.concept_split(split, concept, count)

    def _edit(
        self, editor: Editor, split: InvertedSplit, strengths: tuple[float, ...], step: Any
    ) -> Tensor:
        """[S, n, 3, H, W], checked; in chunks of the run's batch size."""
        inversions = split.inversions
        size = self.config.batch_size or len(inversions)
        parts = []
        for start in range(0, len(inversions), size):
            chunk = inversions.take(range(start, min(start + size, len(inversions))))
            edits = editor.edit(chunk, strengths)
            expected = (len(strengths), *chunk.x_0.shape)
            if tuple(edits.shape) != expected:
                raise InputError(
                    f"edits have shape {list(edits.shape)}, expected {list(expected)}",
                    mend="Editor.edit returns [strengths, images, 3, H, W]",
                )
            if not bool(torch.isfinite(edits).all()):
                raise InputError("the method's edits hold NaN or infinity")
            parts.append(edits)
            if step is not None:
                step(len(chunk))
        return torch.cat(parts, dim=1)

    def _record(
        self, cell: Cell, fitted: Fitted, table: ScoreTable, watch: Stopwatch, edit_calls: float
    ) -> RunRecord:
        config, concept = self.config, cell.concept
        method = make_method(cell.method, config.suite)
        card = self.world.dataset.card
        curve = []
        for strength in table.strengths:
            found = all_measurements(table, strength, concept.attribute, self.spreads, config.seed)
            curve.append(CurvePoint(strength=strength, measurements=found))
        chosen = next(p.measurements for p in curve if p.strength == fitted.strength)
        if not cell.control:
            chosen = chosen | {OVER_RANDOM: self._over_random(cell, table, fitted.strength)}
        at = table.at(fitted.strength, concept.attribute, self.spreads[0])
        moved = drift(at.base, at.edit, at.spread)
        given = cell.control and cell.beside is None
        artefacts = {KEY_ARTEFACT: cell.key}
        if method.info.uses_sae:
            artefacts["sae"] = self.artefacts.sae.content_hash
        weights = pretrained_file(config, method, concept)
        if weights is not None:
            artefacts["pretrained"] = hash_file(weights)
        shared = [method.fit_key()] if isinstance(method, SupportsFitKey) else []
        return RunRecord(
            **common_fields(self.world, config),
            **cell_fields(cell, config),
            strength=fitted.strength,
            strength_chosen_on="given" if given else "validation",
            strengths=table.strengths,
            measurements=chosen,
            curve=tuple(curve),
            drift={name: float(v) for name, v in zip(card.attributes, moved, strict=True)},
            metric_versions=metric_versions(),
            artefacts=artefacts | ({"fit": hash_json(shared)} if shared else {}),
            cost=Cost(
                parameters=fitted.cost.parameters,
                unet_calls=fitted.cost.unet_calls,
                edit_unet_calls=edit_calls,
            ),
            flags=_flags(chosen, pretrained=weights is not None),
            provenance=provenance(config, watch.seconds, fitted.spent),
        )

    def _over_random(self, cell: Cell, table: ScoreTable, strength: float) -> Measurement:
        """EPR over that of the random control of its space, whose cell has run before this one."""
        if not cell.matched:
            return Measurement.missing("there is no random control of this edit space")
        key = CellKey(cell.dataset, "edit", cell.matched[0], cell.method, cell.concept.name)
        record = self.store.find(key)
        if record is None or record.status != "done" or record.strength != strength:
            return Measurement.missing("no random control was run beside it")
        scores = self.store.scores(record)
        if scores is None:
            return Measurement.missing("the random control's scores are not there")
        return over_random(
            table, scores, strength, cell.concept.attribute, self.spreads[0], self.config.seed
        )

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


def _flags(measurements: dict[str, Measurement], pretrained: bool) -> tuple[str, ...]:
    flags = {"pretrained weights"} if pretrained else set()
    if measurements["epr_raw"].status == "undefined":
        flags.add("EPR undefined")
    wrong = measurements["wrong_way_rate"].value
    if wrong is not None and wrong > 0.5:
        flags.add("wrong way")
    return tuple(sorted(flags))
