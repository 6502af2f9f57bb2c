"""Stored images of a run → PNG files a person can look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, PngImagePlugin

from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.core.files import safe_name, write_bytes
from casl_bench.records.edited_images import EditedImages
from casl_bench.records.record import RunRecord
from casl_bench.records.record_store import CellKey, RecordStore
from casl_bench.reports.strips import ReportedEdits, draw_cell, draw_comparison

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
        path = folder / f"{safe_name(dataset)}.png"
        key = _hash_of(of_dataset)
        if not _is_up_to_date(path, key):
            _write(path, key, draw_comparison(_comparison(store, of_dataset)))
    return folder


def write_overview(store: RecordStore, concepts: Sequence[str], image: int, path: Path) -> None:
    """One row a concept, one column an entrant at its reported strength.

    Args:
        store: a run's records.
        concepts: which, in this order; all where empty.
        image: place among a concept's images; the last one where it has fewer.
        path: PNG file to write.

    Raises:
        UsageError: on a concept that no entrant of the run has edited.
    """
    done = [r for r in store if r.kind == "edit" and r.images is not None and not r.control]
    known = {r.concept or "" for r in done}
    for name in concepts:
        if name not in known:
            raise unknown_name("concept", name, known)
    if not done:
        raise UsageError("no pictures", where=str(store.run), mend="give a run folder")
    shown = [r for r in done if r.concept in (concepts or known)]
    rows = _comparison(store, shown, concepts)
    _write(path, _hash_of(shown), draw_comparison(rows, image=image))


def _comparison(
    store: RecordStore, records: Sequence[RunRecord], concepts: Sequence[str] = ()
) -> list[tuple[str, dict[str, ReportedEdits]]]:
    """Rows in the order of `concepts`; a label names the data set where there are several."""
    place = {name: i for i, name in enumerate(concepts)}
    several = len({r.dataset for r in records}) > 1
    rows: dict[str, dict[str, ReportedEdits]] = {}
    ordered = sorted(
        records,
        key=lambda r: (place.get(r.concept or "", 0), r.dataset, r.concept or "", r.method or ""),
    )
    for r in ordered:
        label = f"{r.dataset}: {r.concept}" if several else f"{r.concept}"
        reported = ReportedEdits(load_images(store, r), r.strength)
        rows.setdefault(label, {})[r.method or ""] = reported
    return list(rows.items())


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
