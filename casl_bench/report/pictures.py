"""Stored images of a run → PNG files a person can look at."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from casl_bench.analysis.analyse import DatasetScores, group_cells
from casl_bench.analysis.headline import PreciseEdits
from casl_bench.core.errors import InputError, UsageError, unknown_name
from casl_bench.core.files import hash_json, regular, safe_name, write_bytes
from casl_bench.results.edited_images import EditedImages, Pixels
from casl_bench.results.record import CellRecord, RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.stored_cells import read_cells

# Pictures of edits side by side: arrays in, one picture out.

SCALE, COMPARISON_SCALE = 3, 2
"""Enlargement: a 64-pixel image is shown at 192 pixels, or 128 with a column per method."""
_GAP, _MARGIN, _TEXT_SIZE = 6, 10, 15
_PAPER, _INK = (255, 255, 255), (30, 30, 36)


@dataclass(frozen=True)
class Row:
    """One row of a picture: [H, W, 3] uint8 each; None leaves the place empty."""

    label: str
    pictures: tuple[Pixels | None, ...]


def draw_rows(
    columns: Sequence[str], rows: Sequence[Row], *, title: str = "", scale: int = SCALE
) -> Image.Image:
    """Rows of equally large pictures under column titles, enlarged by `scale`.

    Raises:
        InputError: if there is no picture, or rows or sizes differ.
    """
    sizes = {p.shape for row in rows for p in row.pictures if p is not None}
    if len(sizes) != 1:
        raise InputError(f"pictures of one size are needed, got {sorted(sizes) or 'none'}")
    if any(len(row.pictures) != len(columns) for row in rows):
        raise InputError(f"every row needs {len(columns)} pictures")
    (height, width, _) = sizes.pop()
    height, width = height * scale, width * scale
    font = ImageFont.load_default(size=_TEXT_SIZE)
    line = _TEXT_SIZE + _GAP
    label_width = max((round(font.getlength(row.label)) for row in rows), default=0)
    left = _MARGIN + (label_width + 2 * _GAP if label_width else 0)
    top = _MARGIN + line * (2 if title else 1)
    right = left + len(columns) * (width + _GAP) - _GAP + _MARGIN
    canvas_width = max(right, _MARGIN * 2 + round(font.getlength(title)))
    canvas = Image.new(
        "RGB", (canvas_width, top + len(rows) * (height + _GAP) - _GAP + _MARGIN), _PAPER
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, _INK, font)
    for c, name in enumerate(columns):
        centre = left + c * (width + _GAP) + width / 2
        draw.text((centre, top - _GAP), name, _INK, font, anchor="ms")
    for r, row in enumerate(rows):
        y = top + r * (height + _GAP)
        draw.text((_MARGIN, y + height / 2), row.label, _INK, font, anchor="lm")
        for c, picture in enumerate(row.pictures):
            if picture is not None:
                enlarged = Image.fromarray(picture).resize(
                    (width, height), Image.Resampling.LANCZOS
                )
                canvas.paste(enlarged, (left + c * (width + _GAP), y))
    return canvas


def draw_cell(images: EditedImages, *, title: str, max_rows: int = 6) -> Image.Image:
    """A cell's first images: source, reconstruction, every strength, and the oracle if known."""
    columns = ["source", "reconstruction", *(f"strength {s:g}" for s in images.strengths)]
    stacks = [images.source, images.reconstruction, *images.edits]
    if images.oracle is not None:
        columns.append("oracle")
        stacks.append(images.oracle)
    count = min(len(images.image_ids), max_rows)
    rows = [Row("", tuple(stack[i] for stack in stacks)) for i in range(count)]
    return draw_rows(columns, rows, title=title)


@dataclass(frozen=True)
class ReportedEdits:
    """One method's pictures of one concept, and the strength that its table row is about."""

    images: EditedImages
    strength: float | None

    def edit(self, image: int) -> Pixels | None:
        """The edit of the image at this place at the reported strength."""
        if self.strength not in self.images.strengths:
            return None
        picture: Pixels = self.images.edits[self.images.strengths.index(self.strength), image]
        return picture


def draw_comparison(
    rows: Sequence[tuple[str, Mapping[str, ReportedEdits]]], *, image: int = 0
) -> Image.Image:
    """One row per concept, one column per method, each at the strength that the tables report.

    `rows` are a label, and method → its pictures of the concept, all of the same images; shown is
    the image at this place, the last one where there are fewer.

    Raises:
        InputError: if there is no picture.
    """
    methods = list(dict.fromkeys(name for _, cells in rows for name in cells))
    known = any(c.images.oracle is not None for _, cells in rows for c in cells.values())
    drawn = []
    for label, cells in rows:
        kept = [cell.images for cell in cells.values()]
        i = min(image, *(len(images.image_ids) - 1 for images in kept))
        oracle = next((images.oracle[i] for images in kept if images.oracle is not None), None)
        edits = [cells[name].edit(i) if name in cells else None for name in methods]
        row = (kept[0].source[i], kept[0].reconstruction[i], *edits)
        drawn.append(Row(label, (*row, oracle) if known else row))
    columns = ("source", "reconstruction", *methods, *(("oracle",) if known else ()))
    return draw_rows(columns, drawn, scale=COMPARISON_SCALE)


FOLDER = "pictures"
_MADE_FROM = "made-from"


def write_pictures(store: RecordStore, records: Sequence[RunRecord]) -> Path:
    """One PNG per cell of a method, one overview per data set; what is up to date is left alone.

    Returns:
        The folder of the pictures, in the run folder.
    """
    folder = store.run / FOLDER
    # The controls' pictures stay in their cells: eight sheets of no edit help no reader.
    shown = [r for r in records if r.kind == "edit" and r.images is not None and not r.control]
    for record in shown:
        cell = CellKey.of(record).path
        path, key = folder / cell.parent / f"{cell.name}.png", _hash_of([record])
        if not _is_up_to_date(path, key):
            _write(path, key, draw_cell(load_images(store, record), title=_title(record)))
    for dataset in sorted({r.dataset for r in shown}):
        of_dataset = [r for r in shown if r.dataset == dataset]
        path, key = folder / f"{safe_name(dataset)}.png", _hash_of(of_dataset)
        if not _is_up_to_date(path, key):
            _write(path, key, draw_comparison(_comparison(store, of_dataset)))
    return folder


def _comparison(
    store: RecordStore, records: Sequence[RunRecord]
) -> list[tuple[str, dict[str, ReportedEdits]]]:
    """Rows of one data set in the order of its concepts."""
    rows: dict[str, dict[str, ReportedEdits]] = {}
    for r in sorted(records, key=lambda r: (r.concept or "", r.method or "")):
        reported = ReportedEdits(load_images(store, r), r.strength)
        rows.setdefault(r.concept or "", {})[r.method or ""] = reported
    return list(rows.items())


CONCEPTS = 3
"""Of each data set that `write_edits` shows where none are named: the first ones."""
LEVELS = {"effect_25": "25 %", "effect_50": "50 %", "effect_75": "75 %"}
"""Levels of effect at whose strengths it shows edits, and the headings of their columns."""


def write_edits(
    run: Path, path: Path, concepts: Sequence[str] = (), methods: Sequence[str] = ()
) -> None:
    """Write a PNG of edits: some concepts of each data set side by side, a row per method.

    Every method shows the same image of a concept, the one whose credit in precise edits, meaned
    over these methods, is the median: the columns are the source, its reconstruction, the edits at
    the run's levels of effect (empty where one is not reached), and the perfect edit.

    Args:
        run: folder of a run with pictures.
        path: the file.
        concepts: which; by default the first `CONCEPTS` of each data set.
        methods: which, in this order; by default all, that with the most precise edits first.

    Raises:
        UsageError: on a concept or method that the run has not edited, or a run without pictures.
    """
    store, datasets = RecordStore(run), group_cells(read_cells(run))
    if not datasets:
        raise UsageError("no records", where=str(run), hint="give a run folder")
    for asked, kind, known in (
        (concepts, "concept", {c for d in datasets for c in d.concepts}),
        (methods, "method", {m for d in datasets for m in d.methods}),
    ):
        for name in asked:
            if name not in known:
                raise unknown_name(kind, name, known)
    blocks = []
    for dataset in datasets:
        shown = [c for c in dataset.concepts if c in concepts or not concepts]
        shown = shown if concepts else shown[:CONCEPTS]
        if shown:
            blocks.append(_joined(_concept_blocks(store, dataset, shown, methods), down=False))
    if not blocks:
        raise UsageError("no pictures", where=str(run), hint="give a run folder")
    _write(path, "", _joined(blocks, down=True))


def _concept_blocks(
    store: RecordStore, dataset: DatasetScores, concepts: Sequence[str], methods: Sequence[str]
) -> list[Image.Image]:
    """One block per concept, rows alike in all of them, named in the first."""
    names = [
        m for m in methods or dataset.methods if any(c in dataset.methods[m] for c in concepts)
    ]
    own = {
        (c, m): (dataset.methods[m][c][0].record, dataset.precise_edits(m, c, (0,)))
        for m in names
        for c in concepts
        if 0 in dataset.methods[m].get(c, {})
    }
    if not methods:
        of_method = {m: [p.value for (_, n), (_, p) in own.items() if n == m] for m in names}
        names.sort(key=lambda m: -float(np.mean(of_method[m] or [0.0])))
    measured = {level.name for record, _ in own.values() for level in record.levels}
    levels = [name for name in LEVELS if name in measured]
    blocks = []
    for place, concept in enumerate(concepts):
        kept = {m: load_images(store, own[concept, m][0]) for m in names if (concept, m) in own}
        some = next(iter(kept.values()))
        image = median_image([own[concept, m][1] for m in kept], some.image_ids)
        last = () if some.oracle is None else ("oracle",)
        columns = ("source", "recon.", *(LEVELS[name] for name in levels), *last)
        rows = []
        for m in names:
            label = m if place == 0 else ""
            if m not in kept:
                rows.append(Row(label, (None,) * len(columns)))
                continue
            images, i = kept[m], kept[m].image_ids.index(image)
            at = {level.name: level.strength for level in own[concept, m][0].levels}
            edits = [ReportedEdits(images, at.get(name)).edit(i) for name in levels]
            best = () if some.oracle is None else (some.oracle[some.image_ids.index(image)],)
            rows.append(Row(label, (images.source[i], images.reconstruction[i], *edits, *best)))
        title = f"{dataset.name}: {concept}" if place == 0 else concept
        blocks.append(draw_rows(columns, rows, title=title, scale=1))
    return blocks


def median_image(found: Sequence[PreciseEdits], among: Sequence[str]) -> str:
    """The image in the middle by its credit, meaned over methods on the same images.

    Of an even number the lower of the two; equal ones are in the order of the test images.

    Args:
        found: of each method.
        among: images to choose from; those whose target was there before are passed over.
    """
    first = found[0]
    credit = np.mean([own.credit for own in found], axis=0)
    rows = [i for i, name in enumerate(first.image_ids) if name in among and first.eligible[i]]
    rows = rows or [first.image_ids.index(among[0])]
    ordered = sorted(rows, key=lambda i: credit[i])
    return first.image_ids[ordered[(len(ordered) - 1) // 2]]


def _joined(blocks: Sequence[Image.Image], *, down: bool) -> Image.Image:
    """Pictures one under another, or side by side."""
    widths, heights = zip(*(block.size for block in blocks), strict=True)
    size = (max(widths), sum(heights)) if down else (sum(widths), max(heights))
    joined, x, y = Image.new("RGB", size, _PAPER), 0, 0
    for block in blocks:
        joined.paste(block, (x, y))
        x, y = (x, y + block.height) if down else (x + block.width, y)
    return joined


def load_images(store: RecordStore, record: RunRecord | CellRecord) -> EditedImages:
    """The pictures kept with a record.

    Raises:
        InvalidBenchmarkError: if the file is not one of ours.
    """
    assert record.images is not None
    path = store.folder(CellKey.of(record)) / record.images.file
    return EditedImages.from_bytes(path.read_bytes(), where=str(path))


def _title(record: RunRecord) -> str:
    quick = " (quick: for trying out)" if record.suite.quick else ""
    return f"{record.concept}: {record.method}, {record.dataset}{quick}"


def _hash_of(records: Sequence[RunRecord]) -> str:
    return hash_json([r.images.sha256 for r in records if r.images is not None])


def _is_up_to_date(path: Path, key: str) -> bool:
    try:
        with Image.open(regular(path)) as picture:
            return picture.info.get(_MADE_FROM) == key
    except (OSError, Image.DecompressionBombError):
        return False


def _write(path: Path, key: str, picture: Image.Image) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(_MADE_FROM, key)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=info, compress_level=4)
    write_bytes(path, out.getvalue())
