"""Re-judging: a run's stored pictures, scored by scorers that did not exist when it ran.

Classifiers of the attributes, and a regressor of the known factors, which hold what is a rendered
subject's identity. They score pictures that the diffusion model has purified. What a method gained
by pleasing the shipped scorers is lost here. On request
other test images are rendered, too, and edited with the fits in the cache: what was chosen for the
known images is lost as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from casl_bench.analysis.analyse import DatasetScores, group_cells
from casl_bench.analysis.headline import precise_edits, response
from casl_bench.analysis.measure import best_strength
from casl_bench.core.errors import UsageError
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import invert
from casl_bench.domains.dataset import ImageBatch
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.renderer import SEED as RENDERER_SEED
from casl_bench.domains.rendering.renderer import to_pixels
from casl_bench.metrics.edit_scores import spread_of
from casl_bench.models.micro_batch import one_thread
from casl_bench.report.markdown import number, table
from casl_bench.results.edited_images import EditedImages
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
from casl_bench.runs.scoring import background_changes, pictures_of
from casl_bench.studies.fresh_scorers import IMAGES, STEPS, fresh_domain
from casl_bench.studies.purified import PurifiedScorers

SPREAD_IMAGES = 256
"""Training images over which the logits' standard deviations are taken."""

PERFECT = "oracle"
"""The control that says how much purification takes from any edit."""

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
        steps: of each scorer's training.
        images: to train them on.
        fresh_split: whether to edit other test images, too, with the fits in the run's cache.
        cache: of the run; default the user's.
        say: takes lines of progress.

    Raises:
        UsageError: if there is no picture of a rendered domain in it.
        InvalidBenchmarkError: if something stored is damaged, or a scorer learns too little.
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
        domain = fresh_domain(dataset.name, seed, pools, steps=steps, images=images, say=say)
        again = rejudged_scores(dataset, store, domain, seed)
        other = _on_fresh_images(run, dataset, domain, seed, cache, say) if fresh_split else {}
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
            scorers=domain.scorer_hashes, methods=methods, kept=_kept(dataset, again)
        )
    result = Rejudged(seed=seed, steps=steps, images=images, datasets=found)
    write_rejudged(run / FILE, result)
    return result


def _mean(scores: DatasetScores, method: str, concepts: Sequence[str]) -> float:
    """Of precise edits over concepts and, in each, over fits."""
    values = [scores.precise_edits(method, c, sorted(scores.methods[method][c])) for c in concepts]
    return round(float(np.mean([v.value for v in values])), 6)


def _kept(shipped: DatasetScores, fresh: DatasetScores) -> float:
    """Share of its precise edits that the perfect edit keeps; 1 where it was not run."""
    before, after = (
        {c.record.concept: precise_edits([c], scores.scales).value
         for c in scores.edits if c.record.method == PERFECT}
        for scores in (shipped, fresh)
    )  # fmt: skip
    total = sum(before[concept] for concept in after)
    return min(round(sum(after.values()) / total, 6), 1.0) if total else 1.0


def rejudged_scores(
    dataset: DatasetScores, store: RecordStore, domain: Domain, seed: int
) -> DatasetScores:
    """The cells of methods, and of the perfect edit, at the strength that counts.

    As the domain's scorers score their purified pictures; the background, which no network is asked
    for, stays as it was.
    """
    scorers = PurifiedScorers(domain, seed)
    concepts = {c.name: c for c in domain.dataset.card.concepts}
    scales = fresh_scales(dataset, domain)
    cells = [
        replace(c, record=c.record.model_copy(update={"scales": scales, "judges": ()}))
        for c in dataset.cells
        if c.record.kind == "scorer"
    ]
    for cell in dataset.edits:
        if cell.record.control and cell.record.method != PERFECT:
            continue
        if cell.record.images is None or cell.scores is None:
            continue
        pictures = EditedImages.from_bytes(store.files(cell.record)[cell.record.images.file])
        best = _best(cell, dataset.scales)
        edits = pictures.edits[[pictures.strengths.index(best)]]
        background = cell.scores.background
        if background is not None:
            background = background[[cell.scores.strengths.index(best)]]
        some = replace(pictures, strengths=(best,), edits=edits)
        table = scorers.scores(concepts[cell.record.concept or ""], some, background)
        cells.append(_cell_at(cell, table))
    return DatasetScores(tuple(cells))


def _best(cell: StoredCell, scales: ReferenceScales) -> float:
    """The strength at which a cell counts, as the run chose it."""
    assert cell.scores is not None
    return best_strength(cell.record, cell.scores, response(cell, scales))


def _cell_at(cell: StoredCell, table: ScoreTable) -> StoredCell:
    """The cell with other scores, of one strength."""
    (strength,) = table.strengths
    update = {"judges": table.classifiers, "strength": strength, "strengths": (strength,)}
    return StoredCell(cell.record.model_copy(update={**update, "levels": ()}), table)


def fresh_scales(dataset: DatasetScores, domain: Domain) -> ReferenceScales:
    """Units of the classifiers' logits over training images; of similarity as they were."""
    drawing = RENDERED[dataset.name].drawing
    stream = derive_seed(RENDERER_SEED, drawing.name, "train")
    factors = drawing.sample(np.arange(SPREAD_IMAGES), stream)
    pictures = to_pixels(drawing.render(factors))
    spreads = {
        c.info.name: spread_of(c.logits(pictures).double().numpy(), 0) for c in domain.classifiers
    }
    return dataset.scales.model_copy(
        update={"spreads": {n: tuple(map(float, own)) for n, own in spreads.items()}}
    )


# Other test images: rendered now, inverted, and edited with the fits of the run.


def _on_fresh_images(
    run: Path,
    dataset: DatasetScores,
    domain: Domain,
    seed: int,
    cache: Path | None,
    say: Say,
) -> dict[str, float]:
    """Method → share of precise edits by fresh scorers on fresh images, mean over concepts."""
    methods = tuple(dataset.methods)
    config = config_of_run(run, (dataset.name,), methods, cache)
    artifacts = Artifacts(open_domains(config)[dataset.name], config, SilentProgress())
    cells, scorers = EditCells(artifacts, RecordStore(run)), PurifiedScorers(domain, seed)
    scales, count = fresh_scales(dataset, domain), config.suite.test_images_per_concept
    batch = fresh_images(dataset.name, seed, config.suite.test_pool_images)
    say(f"{dataset.name}: inverting {len(batch)} fresh images")
    inversions = invert(
        domain.backbone, batch.image_ids, batch.pixels, artifacts.timesteps,
        extrapolate=config.suite.extrapolate,
    )  # fmt: skip
    whole = InvertedSplit(batch, inversions, None)
    concepts = {c.name: c for c in domain.dataset.card.concepts}
    found: dict[str, list[float]] = {}
    for method, by_concept in dataset.methods.items():
        for name, by_fit in by_concept.items():
            cell = by_fit[min(by_fit)]
            say(f"{dataset.name}: {method}, {name}, fresh images")
            split = artifacts.concept_split(whole, concepts[name], count)
            fit = cell.record.fit_seed
            editor, _ = cells.fitting.editor(method, concepts[name], Stopwatch(), fit_seed=fit)
            best = _best(cell, dataset.scales)
            edits = cells.edit_images(editor, split, (best,), None)
            pictures = pictures_of(split.inversions, edits, (best,))
            known = scorers.scorers.known_change(concepts[name], split.inversions)
            background = background_changes(pictures, known)
            table = scorers.scores(concepts[name], pictures, background)
            again = precise_edits([_cell_at(cell, table)], scales)
            found.setdefault(method, []).append(again.value)
    return {method: round(float(np.mean(values)), 6) for method, values in found.items()}


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
    heads = ["method", "precise edits", "fresh scorers", "fresh images too", "loss", "flag"]
    return table(heads, rows, 1)
