"""Pictures before and after an edit → their scores, a table and a contact sheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from casl_bench.core.errors import InputError, UsageError
from casl_bench.core.files import make_folder, write_bytes, write_text
from casl_bench.metrics.edit_scores import Array
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.scorers import AttributeScorer, CalibratedNetwork, Similarity, compare
from casl_bench.pairs.files import (
    SIZE,
    Pair,
    differing_sizes,
    listed,
    match_folders,
    read_logits,
    read_pairs,
)
from casl_bench.pairs.scorers import Description, FunctionClassifier, LogitsOf, load_classifier
from casl_bench.pairs.scores import (
    TOLERANCE,
    PairScores,
    changes,
    column_of,
    edit_scores,
    largest_other,
)
from casl_bench.report.exports import csv_cell
from casl_bench.report.markdown import number
from casl_bench.report.pictures import Row, draw_rows

BATCH = 16
"""Pairs of pictures in memory at once."""

SHEET_ROWS, SHEET_SIDE = 20, 128

Pictures = Tensor | ArrayLike | str | Path
Classifier = AttributeScorer | LogitsOf | str | Path | Sequence[str | Path]


def score_pairs(
    source: Pictures,
    edited: Pictures,
    target: str | int,
    *,
    classifier: Classifier,
    attributes: str | Sequence[str] | None = None,
    similarity: Similarity | None = None,
    spread: ArrayLike | None = None,
    remove: bool = False,
    tolerance: float = TOLERANCE,
    progress: Callable[[int], object] = lambda count: None,
) -> PairScores:
    """Score pictures before and after an edit, made by anything.

    Args:
        source: folder of pictures; or [n, 3, H, W] float in [-1, 1]; or uint8 with channels first
            or last.
        edited: likewise. Folders are matched by the names of their files without the ending.
        target: the attribute that was to be turned on, by name or column.
        classifier: a scorer with `logits` and `attributes`; or a function or network from pixels
            [n, 3, H, W] in [-1, 1] to logits [n, A], which also needs `attributes`; or a file of
            weights, an ONNX file (see `casl_bench.pairs.scorers.load_classifier`); or one or two
            CSV files of logits, for folders only.
        attributes: names of the classifier's outputs; one name where it has one.
        similarity: adds columns "perceptual" and "identity", of the edit against its source.
        spread: [A] standard deviation of each logit over real images, the unit of changes; by
            default that of these sources.
        remove: the attribute was to be turned off instead.
        tolerance: of a precise edit, in standard deviations.
        progress: called with the number of pairs just done.

    Returns:
        `table`, `per_image` and the logits; `notes` names files that were left out.

    Raises:
        UsageError: if no pair is found, or the classifier does not know the target.
        InputError: on other shapes or ranges, or a classifier that gives anything but [n, A].
        InvalidBenchmarkError: if a file of weights is damaged.
    """
    if isinstance(source, str | Path) != isinstance(edited, str | Path):
        raise InputError("give two folders, or two arrays")
    notes: list[str] = []
    where = ""
    if isinstance(source, str | Path):
        assert isinstance(edited, str | Path)
        folders = (Path(source), Path(edited))
        where = ", ".join(map(str, folders))
        if csv_files := _csv_files(classifier):
            return _score_logits(csv_files, folders, target, similarity, spread, remove, tolerance)
        scorer = _scorer(classifier, attributes)
        column = column_of(scorer.attributes, target)  # before hours of pictures
        matched = match_folders(*folders)
        notes += [*matched.problems, *_differing(matched.pairs)]
        batches = _of_pairs(matched.pairs, notes, _size_for(scorer, similarity))
    else:
        scorer = _scorer(classifier, attributes)
        column = column_of(scorer.attributes, target)
        assert not isinstance(edited, str | Path)
        pictures = as_pixels(source), as_pixels(edited)
        if all(side.numel() and float(side.min()) >= 0 for side in pictures):
            notes.append("no pixel is below 0: of pictures in [0, 1] give 2 * x - 1")
        batches = _of_arrays(*pictures)
    seen = _Seen()
    for names, before, after in batches:
        seen.add(names, scorer.logits(before), scorer.logits(after))
        if similarity is not None:
            seen.compare(similarity, before, after)
        progress(len(names))
    if not seen.names:
        raise UsageError("no pair of pictures can be read", where=where, hint="; ".join(notes))
    scores = edit_scores(*seen.logits, column, spread=spread, remove=remove)
    return PairScores(
        tuple(seen.names), tuple(scorer.attributes), scores, tolerance, seen.measured, tuple(notes)
    )


class _Seen:
    """What the scorers said, batch by batch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._logits: list[tuple[Array, Array]] = []
        self._more: dict[str, list[Array]] = {}

    def add(self, names: Iterable[str], before: Tensor, after: Tensor) -> None:
        self.names += names
        self._logits.append((before.double().numpy(), after.double().numpy()))

    def compare(self, similarity: Similarity, before: Tensor, after: Tensor) -> None:
        distances, likeness = compare(similarity, after[None], before)
        self._more.setdefault("perceptual", []).append(distances[0].double().numpy())
        if likeness is not None:
            self._more.setdefault("identity", []).append(likeness[0].double().numpy())

    @property
    def logits(self) -> tuple[Array, Array]:
        before, after = zip(*self._logits, strict=True)
        return np.concatenate(before), np.concatenate(after)

    @property
    def measured(self) -> dict[str, Array]:
        return {name: np.concatenate(parts) for name, parts in self._more.items()}


def _scorer(classifier: Classifier, attributes: str | Sequence[str] | None) -> AttributeScorer:
    names = (attributes,) if isinstance(attributes, str) else tuple(attributes or ())
    if isinstance(classifier, str | Path):
        return load_classifier(Path(classifier), Description(names))
    if hasattr(classifier, "logits") and hasattr(classifier, "attributes"):
        return classifier  # type: ignore[return-value]  # its other parts are not asked for
    if not callable(classifier):
        raise InputError("a classifier is a scorer, a function of pixels or a file")
    return FunctionClassifier(classifier, names)  # type: ignore[return-value]


def _csv_files(classifier: Classifier) -> list[Path]:
    files = [classifier] if isinstance(classifier, str | Path) else classifier
    if not isinstance(files, Sequence) or not all(isinstance(f, str | Path) for f in files):
        return []
    paths = [Path(file) for file in files]
    return paths if all(path.suffix.lower() == ".csv" for path in paths) else []


def _score_logits(
    files: Sequence[Path],
    folders: tuple[Path, Path],
    target: str | int,
    similarity: Similarity | None,
    spread: ArrayLike | None,
    remove: bool,
    tolerance: float,
) -> PairScores:
    """Logits from files; the pictures are only compared."""
    logits = read_logits(files, folders)
    column = column_of(logits.attributes, target)
    matched = match_folders(*folders)
    known = {pair.name: pair for pair in matched.pairs}
    notes = [*logits.problems, *matched.problems, *_differing(matched.pairs)]
    if absent := [name for name in known if name not in logits.names]:
        notes.append(f"pairs without logits: {listed(absent)}")
    if gone := [name for name in logits.names if name not in known]:
        notes.append(f"logits without a pair of pictures: {listed(gone)}")
    names = [name for name in logits.names if name in known]
    measured: dict[str, Array] = {}
    if similarity is not None:
        seen = _Seen()
        for batch, before, after in _of_pairs(
            [known[name] for name in names], notes, _size_for(similarity)
        ):
            seen.names += batch
            seen.compare(similarity, before, after)
        names, measured = seen.names, seen.measured
    if not names:
        raise UsageError(
            "no pair of pictures has logits",
            where=", ".join(map(str, files)),
            hint="the column of images holds the names of the files",
        )
    rows = [logits.names.index(name) for name in names]
    scores = edit_scores(
        logits.before[rows], logits.after[rows], column, spread=spread, remove=remove
    )
    return PairScores(tuple(names), logits.attributes, scores, tolerance, measured, tuple(notes))


def _differing(pairs: Sequence[Pair]) -> list[str]:
    found = differing_sizes(pairs)
    said = "in size, so each picture is cut to its middle square and resized"
    return [f"pairs that differ {said}: {listed(found)}"] if found else []


def _size_for(*scorers: object) -> int:
    """At which pictures are read: networks of the rendered domains take one size alone."""
    own = (s.image_size for s in scorers if isinstance(s, CalibratedNetwork | RenderEmbedder))
    return next(own, SIZE)


def _of_pairs(
    pairs: Sequence[Pair], notes: list[str], size: int = SIZE
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Batches of what can be read; what cannot is noted at the end."""
    unreadable: list[str] = []
    names: list[str] = []
    pictures: list[tuple[Tensor, Tensor]] = []
    for pair, *found in read_pairs(pairs, size):
        if isinstance(found[0], str):
            unreadable.append(found[0])
            continue
        names.append(pair.name)
        pictures.append((found[0], found[1]))
        if len(names) == BATCH:
            yield (names, *(torch.stack(side) for side in zip(*pictures, strict=True)))  # type: ignore[misc]
            names, pictures = [], []
    if names:
        yield (names, *(torch.stack(side) for side in zip(*pictures, strict=True)))  # type: ignore[misc]
    if unreadable:
        notes.append(f"pairs that cannot be read: {listed(unreadable)}")


def _of_arrays(before: Tensor, after: Tensor) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    if before.shape != after.shape or not len(before):
        raise InputError(
            f"pictures of shapes {tuple(before.shape)} and {tuple(after.shape)}, not [n, 3, H, W] "
            "twice"
        )
    for start in range(0, len(before), BATCH):
        rows = slice(start, start + BATCH)
        names = [f"{i:06d}" for i in range(start, min(start + BATCH, len(before)))]
        yield names, before[rows], after[rows]


def as_pixels(pictures: Tensor | ArrayLike) -> Tensor:
    """[n, 3, H, W] float32 in [-1, 1] of floats in that range, or of bytes in either layout.

    Raises:
        InputError: on another number of axes or channels, or floats out of range.
    """
    tensor = pictures if isinstance(pictures, Tensor) else torch.as_tensor(np.asarray(pictures))
    tensor = tensor.detach().cpu()
    if tensor.ndim != 4:
        raise InputError(f"pictures of shape {tuple(tensor.shape)}, not [n, 3, H, W]")
    if tensor.shape[1] != 3 and tensor.shape[3] == 3:
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.shape[1] != 3:
        raise InputError(f"pictures of shape {tuple(tensor.shape)}, not of three channels")
    if not tensor.is_floating_point():
        return tensor.float() / 127.5 - 1
    tensor = tensor.float()
    if len(tensor) and not bool((tensor.abs() <= 1.5).all()):
        raise InputError(
            f"pixels between {float(tensor.min()):.3g} and {float(tensor.max()):.3g}, not in "
            "[-1, 1]",
            hint="give bytes, or x / 127.5 - 1 of them",
        )
    return tensor.contiguous()


# What a command leaves: a table, a row per image, and a contact sheet.


def summary(scores: PairScores) -> str:
    """The table for a terminal, with what is to be known of the files."""
    rows = [
        [
            row.title,
            "—" if np.isnan(row.value) else number(float(row.value), 3),
            "" if np.isnan(row.low) else f"[{number(row.low, 3)}, {number(row.high, 3)}]",
            int(row.n),
            row.reason or row.unit,
        ]
        for _, row in scores.table.iterrows()
    ]
    heads = ["metric", "value", "95 % interval", "n", ""]
    align = ("left", "right", "left", "right", "left")
    body = tabulate(rows, heads, "github", disable_numparse=True, colalign=align)
    how = "turned off" if scores.scores.sign < 0 else "turned on"
    others = [name for name in scores.attributes if name != scores.target]
    beside = f"; other attributes: {listed(others)}" if others else ", and no other attribute"
    lines = [f"{scores.target}, {how}: {len(scores)} pairs{beside}", "", body]
    lines += ["", *(f"- {note}" for note in scores.notes)] if scores.notes else []
    return "\n".join(lines) + "\n"


def contact_sheet(scores: PairScores, pairs: Sequence[Pair]) -> Image.Image:
    """The first pairs, source and edit side by side, with what each edit did."""
    s, known = scores.scores, {pair.name: pair for pair in pairs}
    change, worst = s.sign * changes(s)[:, s.target], largest_other(s)
    rows = []
    for place, name in enumerate(scores.image_ids[:SHEET_ROWS]):
        _, *found = next(read_pairs([known[name]], SHEET_SIDE))
        if isinstance(found[0], str):
            continue
        bytes_of = [
            ((x.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
            for x in found
        ]
        precise = "precise" if bool(scores.per_image["precise"].iloc[place]) else ""
        label = f"{name}: {scores.target} {change[place]:+.2f} sd, others up to {worst[place]:.2f}"
        rows.append(Row(f"{label}  {precise}", tuple(bytes_of)))
    return draw_rows(["source", "edited"], rows, scale=1)


@dataclass(frozen=True)
class Written:
    """The files of a command."""

    table: Path
    per_image: Path
    sheet: Path


def write_scores(scores: PairScores, pairs: Sequence[Pair], out: Path) -> Written:
    """Write table.md, pairs.csv and contact_sheet.png into a folder.

    Raises:
        UsageError: if it cannot be written.
    """
    make_folder(out)
    files = Written(out / "table.md", out / "pairs.csv", out / "contact_sheet.png")
    write_text(files.table, summary(scores))
    rows = scores.per_image.rename(index=csv_cell)
    write_text(files.per_image, rows.to_csv(float_format="%.6g", lineterminator="\n"))
    picture = io.BytesIO()
    contact_sheet(scores, pairs).save(picture, "PNG")
    write_bytes(files.sheet, picture.getvalue())
    return files
