"""Stored pictures → per-image scores by today's scorers: no image is edited again."""

from __future__ import annotations

from pathlib import Path

from casl_bench.core.files import hash_bytes
from casl_bench.domains.dataset import Concept
from casl_bench.metrics.edit_scores import Array
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.edited_images import EditedImages
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.cell import SCORES_FILE
from casl_bench.runs.dataset import DatasetRun
from casl_bench.runs.plan import classifiers_of_record, open_domains
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.run_lock import config_of_run
from casl_bench.runs.scoring import from_8_bits


@one_thread()
def rescore(run: Path) -> int:
    """Score the pictures of a run folder again, and the scorers themselves; how many cells.

    Strengths stay as they were chosen on validation images, whose pictures are not kept, and so do
    the scores of these. Raises
    UsageError where it is no run folder, InvalidBenchmarkError if something stored is damaged, or a
    scorer is under its floor.
    """
    store = RecordStore(run)
    cells = [r for r in store if r.images is not None and r.kind in ("edit", "null")]
    datasets = tuple(dict.fromkeys(r.dataset for r in cells))
    if not datasets:
        return 0
    methods = tuple(dict.fromkeys(r.method or "" for r in cells))
    config = config_of_run(run, datasets, methods)
    for dataset, domain in open_domains(config).items():
        own = DatasetRun(domain, config, store, SilentProgress())
        own.prepare()  # makes the record of the scorers anew where they have changed
        concepts = {c.name: c for c in domain.dataset.card.concepts}
        for record in (r for r in cells if r.dataset == dataset):
            _rescore(own, record, concepts.get(record.concept or ""))
    return len(cells)


def known_change(pictures: EditedImages) -> Array | None:
    """[n, 3, H, W] what the perfect edit changes, of stored pictures; None where it is unknown."""
    if pictures.oracle is None:
        return None
    known: Array = (from_8_bits(pictures.oracle) - from_8_bits(pictures.source)).double().numpy()
    return known


def _rescore(own: DatasetRun, record: CellRecord, concept: Concept | None) -> None:
    store = own.store
    assert record.images is not None and record.scores is not None
    folder = store.folder(CellKey.of(record))
    kept = [ref.file for ref in (record.images, record.validation_scores) if ref is not None]
    files = {name: (folder / name).read_bytes() for name in kept}
    pictures = EditedImages.from_bytes(files[record.images.file])
    table = own.cells.scorers.scores(concept, pictures, known_change(pictures))
    scores = table.to_npz()
    changes = {
        "scores": record.scores.model_copy(
            update={"file": SCORES_FILE, "sha256": hash_bytes(scores)}
        ),
        "scorers": own.domain.scorer_hashes,
        "judges": classifiers_of_record(record, own.cells.scorers.names),
    }
    store.write(record.model_copy(update=changes), {**files, SCORES_FILE: scores})
