"""Re-judging: a run's stored pictures, scored by classifiers that did not exist when it ran.

What a method gained by pleasing the shipped classifiers is lost here. On request other test images
are rendered, too, and edited with the fits in the cache: what was chosen for the known images is
lost as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from casl_bench.analysis.analyse import DatasetScores, group_cells
from casl_bench.analysis.headline import response_curve
from casl_bench.core.errors import UsageError
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import invert
from casl_bench.domains.dataset import ImageBatch
from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.renderer import SEED as RENDERER_SEED
from casl_bench.domains.rendering.renderer import to_pixels
from casl_bench.metrics.edit_scores import Array, spread_of
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.micro_batch import one_thread
from casl_bench.report.markdown import number, table
from casl_bench.results.edited_images import EditedImages, Pixels
from casl_bench.results.record import ReferenceScales
from casl_bench.results.rejudged import (
    FILE,
    Rejudged,
    RejudgedDataset,
    RejudgedMethod,
    write_rejudged,
)
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import StoredCell, read_cells
from casl_bench.runs.artifacts import Artifacts, InvertedSplit
from casl_bench.runs.cell import EditCells
from casl_bench.runs.plan import open_domains
from casl_bench.runs.progress import SilentProgress, Stopwatch
from casl_bench.runs.run_lock import config_of_run
from casl_bench.runs.scoring import from_8_bits
from casl_bench.studies.fresh_classifiers import IMAGES, STEPS, fresh_classifiers

SPREAD_IMAGES = 256
"""Training images over which the logits' standard deviations are taken."""

FIRST_FRESH = 1_000_000
"""Fresh images have numbers from here on, which no split reaches."""

Say = Callable[[str], None]


@one_thread()
def rejudge(
    run: Path,
    seed: int,
    *,
    steps: int = STEPS,
    images: int = IMAGES,
    fresh_split: bool = False,
    cache: Path | None = None,
    say: Say = lambda _: None,
) -> Rejudged:
    """Score the methods of a run folder again, and keep the result in it.

    Args:
        run: the folder, with its pictures.
        seed: of everything fresh.
        steps: of each classifier's training.
        images: to train them on.
        fresh_split: whether to edit other test images, too, with the fits in the run's cache.
        cache: of the run; default the user's.
        say: takes lines of progress.

    Raises:
        UsageError: if there is no picture of a rendered domain in it.
        InvalidBenchmarkError: if something stored is damaged, or a classifier learns too little.
    """
    store = RecordStore(run)
    groups = [d for d in group_cells(read_cells(run)) if d.name in RENDERED and d.methods]
    if not groups:
        raise UsageError(
            "no edits of rendered images", where=str(run), hint="photographs cannot be re-judged"
        )
    pools = None if cache is None else cache / "render_pools"
    found = {}
    for dataset in groups:
        classifiers = fresh_classifiers(
            dataset.name, seed, pools, steps=steps, images=images, say=say
        )
        again = rejudged_scores(dataset, store, classifiers)
        other = _on_fresh_images(run, dataset, classifiers, seed, cache, say) if fresh_split else {}
        methods = {}
        for method, cells in dataset.methods.items():
            concepts = [c for c in cells if c in again.methods.get(method, {})]
            if concepts:
                methods[method] = RejudgedMethod(
                    shipped=_mean(dataset, method, concepts),
                    fresh=_mean(again, method, concepts),
                    fresh_split=other.get(method),
                    concepts=len(concepts),
                )
        found[dataset.name] = RejudgedDataset(
            classifiers={c.info.name: c.info.weights_hash for c in classifiers}, methods=methods
        )
    result = Rejudged(seed=seed, steps=steps, images=images, datasets=found)
    write_rejudged(run / FILE, result)
    return result


def _mean(scores: DatasetScores, method: str, concepts: Sequence[str]) -> float:
    """Of precise edits over concepts and, in each, over fits."""
    values = [scores.precise_edits(method, c, sorted(scores.methods[method][c])) for c in concepts]
    return round(float(np.mean([v.value for v in values])), 6)


def rejudged_scores(
    dataset: DatasetScores, store: RecordStore, classifiers: Sequence[AttributeClassifier]
) -> DatasetScores:
    """The cells of methods, as these classifiers score their pictures; strengths stay as chosen."""
    scales = fresh_scales(dataset, classifiers)
    once = _Once(classifiers)
    cells = [
        replace(c, record=c.record.model_copy(update={"scales": scales, "judges": ()}))
        for c in dataset.cells
        if c.record.kind == "scorer"
    ]
    for cell in dataset.edits:
        if cell.record.control or cell.record.images is None or cell.scores is None:
            continue
        pictures = EditedImages.from_bytes(store.files(cell.record)[cell.record.images.file])
        table = once.table(cell.scores, pictures)
        names = tuple(c.info.name for c in classifiers)
        record = cell.record.model_copy(update={"judges": names})
        cells.append(StoredCell(record, table, curve=response_curve(cell, dataset.scales)))
    return DatasetScores(tuple(cells))


def fresh_scales(
    dataset: DatasetScores, classifiers: Sequence[AttributeClassifier]
) -> ReferenceScales:
    """Units of the classifiers' logits over training images; of similarity as they were."""
    drawing = RENDERED[dataset.name].drawing
    stream = derive_seed(RENDERER_SEED, drawing.name, "train")
    factors = drawing.sample(np.arange(SPREAD_IMAGES), stream)
    pictures = to_pixels(drawing.render(factors))
    spreads = {c.info.name: spread_of(c.logits(pictures).double().numpy(), 0) for c in classifiers}
    return dataset.scales.model_copy(
        update={"spreads": {n: tuple(map(float, own)) for n, own in spreads.items()}}
    )


@dataclass
class _Once:
    """Scores pictures by some classifiers, those that cells share only once."""

    classifiers: Sequence[AttributeClassifier]

    def __post_init__(self) -> None:
        self._known: dict[bytes, Array] = {}

    def table(self, scores: ScoreTable, pictures: EditedImages) -> ScoreTable:
        """The table with these classifiers' logits in place of its own."""
        edits = np.stack([self._logits(e) for e in pictures.edits], axis=1)
        return replace(
            scores,
            classifiers=tuple(c.info.name for c in self.classifiers),
            source_logits=self._shared(pictures.source),
            reconstruction_logits=self._shared(pictures.reconstruction),
            edit_logits=edits,
        )

    def _shared(self, pixels: Pixels) -> Array:
        key = pixels.tobytes()
        if key not in self._known:
            self._known[key] = self._logits(pixels)
        return self._known[key]

    def _logits(self, pixels: Pixels) -> Array:
        """[K, n, A] of [n, H, W, 3]."""
        images = from_8_bits(pixels)
        return np.stack([c.logits(images).double().numpy() for c in self.classifiers])


# Other test images: rendered now, inverted, and edited with the fits of the run.


def _on_fresh_images(
    run: Path,
    dataset: DatasetScores,
    classifiers: Sequence[AttributeClassifier],
    seed: int,
    cache: Path | None,
    say: Say,
) -> dict[str, float]:
    """Method → share of precise edits by fresh classifiers on fresh images, mean over concepts."""
    methods = tuple(dataset.methods)
    config = config_of_run(run, (dataset.name,), methods, cache)
    shipped = open_domains(config)[dataset.name]
    domain = replace(shipped, classifiers=tuple(classifiers))
    artifacts = Artifacts(shipped, config, SilentProgress())
    cells = EditCells(artifacts, RecordStore(run))
    cells.scorers = type(cells.scorers)(domain)
    scales, count = fresh_scales(dataset, classifiers), config.suite.test_images_per_concept
    batch = fresh_images(dataset.name, seed, 3 * count)
    say(f"{dataset.name}: inverting {len(batch)} fresh images")
    inversions = invert(
        domain.backbone, batch.image_ids, batch.pixels, artifacts.timesteps,
        refinements=config.suite.refinements,
    )  # fmt: skip
    whole = InvertedSplit(batch, inversions, None)
    concepts = {c.name: c for c in domain.dataset.card.concepts}
    found: dict[str, list[float]] = {}
    for method, by_concept in dataset.methods.items():
        for name, by_fit in by_concept.items():
            cell = by_fit[0]
            say(f"{dataset.name}: {method}, {name}, fresh images")
            split = artifacts.concept_split(whole, concepts[name], count)
            editor, _ = cells.fitting.editor(method, concepts[name], Stopwatch())
            strengths = tuple(s for s in cell.record.strengths if s > 0)
            edits = cells.edit_images(editor, split, strengths, None)
            table, _ = cells.scorers.table(concepts[name], split.inversions, edits, strengths)
            record = cell.record.model_copy(
                update={"judges": table.classifiers, "strengths": strengths}
            )
            again = StoredCell(record, table, curve=response_curve(cell, dataset.scales))
            own = DatasetScores((_scorer_cell(dataset, scales), again))
            found.setdefault(method, []).append(own.precise_edits(method, name, (0,)).value)
    return {method: round(float(np.mean(values)), 6) for method, values in found.items()}


def _scorer_cell(dataset: DatasetScores, scales: ReferenceScales) -> StoredCell:
    some = next(c for c in dataset.cells if c.record.kind == "scorer")
    return replace(some, record=some.record.model_copy(update={"scales": scales, "judges": ()}))


def fresh_images(dataset: str, seed: int, count: int) -> ImageBatch:
    """Test images of a rendered domain that no split holds, other ones for each seed."""
    drawing = RENDERED[dataset].drawing
    start = FIRST_FRESH + derive_seed(seed, "fresh split", dataset) % 2**40
    numbers = start + np.arange(count)
    factors = drawing.sample(numbers, derive_seed(RENDERER_SEED, drawing.name, "test"))
    ids = tuple(f"test-{number:06d}" for number in numbers.tolist())
    labels = torch.from_numpy(factors.attributes.copy())
    return ImageBatch(ids, to_pixels(drawing.render(factors)), labels)


def rejudged_text(found: Rejudged) -> str:
    """A table for the terminal."""
    names = sorted({m for d in found.datasets.values() for m in d.methods})
    rows = []
    for name in names:
        own = [d.methods[name] for d in found.datasets.values() if name in d.methods]
        total = sum(m.concepts for m in own)
        shipped = sum(m.shipped * m.concepts for m in own) / total
        fresh, loss = found.fresh(name), found.loss(name)
        split = [m.fresh_split for m in own if m.fresh_split is not None]
        rows.append(
            [name, number(shipped, 3), number(fresh or 0.0, 3),
             number(float(np.mean(split)), 3) if split else "–",
             f"{100 * (loss or 0):.0f} %", found.flag(name) or ""]
        )  # fmt: skip
    heads = ["method", "precise edits", "fresh classifiers", "fresh images too", "loss", "flag"]
    return table(heads, rows, 1)
