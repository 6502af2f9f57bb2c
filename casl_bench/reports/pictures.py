"""Stored images of a run → PNG files a person can look at."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, PngImagePlugin

from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import unknown_name
from casl_bench.core.files import write_bytes
from casl_bench.records.edited_images import EditedImages
from casl_bench.records.record import RunRecord
from casl_bench.records.record_store import CellKey, RecordStore
from casl_bench.reports.strips import draw_cell, draw_overview

FOLDER = "pictures"
_MADE_FROM = "made-from"


def write_pictures(store: RecordStore, records: Sequence[RunRecord]) -> Path:
    """One PNG an entrant's cell and one overview a data set; what is up to date is left alone.

    Returns:
        The folder of the pictures, in the run folder.
    """
    folder = store.run / FOLDER
    # The controls' pictures stay in their cells: nobody looks at eight sheets of no edit.
    shown = [r for r in records if r.kind == "edit" and r.images is not None and not r.control]
    for record in shown:
        cell = CellKey.of(record).path
        path = folder / cell.parent / f"{cell.name}.png"
        key = _hash_of([record])
        if not _is_up_to_date(path, key):
            _write(path, key, draw_cell(load_images(store, record), title=_title(record)))
    for dataset in sorted({r.dataset for r in shown}):
        of_dataset = [r for r in shown if r.dataset == dataset]
        of_dataset.sort(key=lambda r: (r.concept or "", r.method or ""))
        path = folder / f"{dataset}.png"
        key = _hash_of(of_dataset)
        if of_dataset and not _is_up_to_date(path, key):
            cells = [(f"{r.concept}: {r.method}", load_images(store, r)) for r in of_dataset]
            usual = Counter(images.strengths for _, images in cells).most_common(1)[0][0]
            # A cell that ran at other strengths than most does not fit into one picture.
            cells = [(label, images) for label, images in cells if images.strengths == usual]
            _write(path, key, draw_overview(cells))
    return folder


def write_overview(store: RecordStore, concepts: Sequence[str], image: int, path: Path) -> None:
    """One row a concept and entrant, of the image at this place.

    Args:
        store: a run's records.
        concepts: which, in this order; all where empty.
        image: place among a cell's images; the last one where it has fewer.
        path: PNG file to write.

    Raises:
        UsageError: on a concept that no entrant of the run has edited.
    """
    done = [r for r in store if r.kind == "edit" and r.images is not None and not r.control]
    known = {r.concept or "" for r in done}
    for name in concepts:
        if name not in known:
            raise unknown_name("concept", name, known)
    shown = [r for c in concepts or sorted(known) for r in done if r.concept == c]
    cells = [(f"{r.concept}: {r.method}", load_images(store, r)) for r in shown]
    _write(path, _hash_of(shown), draw_overview(cells, image=image))


def load_images(store: RecordStore, record: RunRecord) -> EditedImages:
    """The pictures kept with a record.

    Raises:
        InvalidBenchmarkError: if the file is not one of ours.
    """
    assert record.images is not None
    path = store.folder(CellKey.of(record)) / record.images.file
    return EditedImages.from_bytes(path.read_bytes(), where=str(path))


def _title(record: RunRecord) -> str:
    beside = f" beside {record.beside}" if record.beside else ""
    quick = " (quick: for trying out)" if record.suite.quick else ""
    return f"{record.concept}: {record.method}{beside}, {record.dataset}{quick}"


def _hash_of(records: Sequence[RunRecord]) -> str:
    return hash_json([r.images.sha256 for r in records if r.images is not None])


def _is_up_to_date(path: Path, key: str) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.info.get(_MADE_FROM) == key
    except OSError:
        return False


def _write(path: Path, key: str, picture: Image.Image) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(_MADE_FROM, key)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=info, compress_level=4)
    write_bytes(path, out.getvalue())
