"""Per-image scores of one cell: what every metric of edits is computed from, and nothing else.

A table goes to a file and comes back equal, so every analysis of a run gives the same numbers.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import MOST_BYTES
from casl_bench.metrics.edit_scores import PER_IMAGE, Array, EditScores, check_array

_KEYS = ("image_id", "picture", "strength")
_NAMES = ("image_ids", "strengths", "attributes", "classifiers")
_LOGITS = {"source_logits": 1, "reconstruction_logits": 1, "edit_logits": 2}
"""Array → the axis of its images."""

READ_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
"""What is raised where a file is not what was written."""


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file. ValueError on anything else, or where they are too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB once unpacked")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged header may raise anything, MemoryError among it
        raise ValueError(f"no npz file: {error}") from error


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """All scores of one (method, concept): n images, S strengths, K classifiers, A attributes.

    Numbers are rounded to float32, the precision scorers work in and the file keeps.

    Attributes:
        image_ids: n >= 1 distinct ids.
        strengths: S distinct non-zero strengths.
        attributes: A names, the classifiers' columns.
        classifiers: K names, the primary one first.
        source_logits: [K, n, A] of the source images.
        reconstruction_logits: [K, n, A] of their reconstructions (strength 0).
        edit_logits: [K, S, n, A].
        clip_similarity: [S, n] cosine of the image's change with the text's, or None.
        perceptual: [S, n] distance of the edit from the reconstruction, >= 0, or None.
        identity: [S, n] similarity of the edit with the reconstruction, in [-1, 1], or None.
        locality: [S, n] share of the change within the perfect edit's region, in [0, 1], or None.
        background: [S, n] change outside that region, 1 for an unrelated image, or None.
        factor_target: [S, n] change of the target's known factor, or None.
        factor_others: [S, n] mean absolute change of the other known factors, >= 0, or None.
        factor_worst: [S, n] largest change of another known factor, of its range, or None.
    """

    image_ids: tuple[str, ...]
    strengths: tuple[float, ...]
    attributes: tuple[str, ...]
    classifiers: tuple[str, ...]
    source_logits: Array
    reconstruction_logits: Array
    edit_logits: Array
    clip_similarity: Array | None = None
    perceptual: Array | None = None
    identity: Array | None = None
    locality: Array | None = None
    background: Array | None = None
    factor_target: Array | None = None
    factor_others: Array | None = None
    factor_worst: Array | None = None

    def __post_init__(self) -> None:
        """Round to float32 and refuse repeated names, wrong shapes, NaN and infinity."""
        for name in ("image_ids", "attributes", "classifiers"):
            values = tuple(str(v) for v in getattr(self, name))
            _check_distinct(name, values)
            if not all(v.isprintable() for v in values):
                raise InputError(f"{name} must not hold line breaks or control characters")
            object.__setattr__(self, name, values)
        strengths = tuple(float(s) for s in self.strengths)
        _check_distinct("strengths", strengths)
        if 0 in strengths or not np.isfinite(strengths).all():
            raise InputError("strengths must be finite and not zero (zero is the reconstruction)")
        object.__setattr__(self, "strengths", strengths)
        if any("/" in a for a in self.attributes):
            raise InputError("attribute names must not hold '/'")
        if not self.image_ids or not self.classifiers or not self.attributes:
            raise InputError("a table needs at least one image, classifier and attribute")
        k, s = len(self.classifiers), len(self.strengths)
        n, a = len(self.image_ids), len(self.attributes)
        shapes: dict[str, tuple[int, ...]]
        shapes = {"source_logits": (k, n, a), "reconstruction_logits": (k, n, a)}
        shapes |= {"edit_logits": (k, s, n, a)} | dict.fromkeys(PER_IMAGE, (s, n))
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values is not None:
                with np.errstate(over="ignore"):  # an overflow is refused just below
                    rounded = np.asarray(values).astype(np.float32).astype(np.float64)
                object.__setattr__(self, name, check_array(name, rounded, len(shape), shape))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScoreTable) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # equal by value, holds arrays

    def at(
        self,
        strength: float,
        attribute: str,
        spread: Array,
        *,
        sign: int = 1,
        classifier: str | None = None,
        unrelated_perceptual: float | None = None,
        unrelated_identity: float | None = None,
    ) -> EditScores:
        """What a metric sees: one strength, one target, one classifier (default: the primary).

        Args:
            strength: one of `strengths`, or 0 for the reconstruction itself.
            attribute: the target.
            spread: [A] standard deviation of this classifier's logits over real source images.
            sign: +1 where the edit is to turn the attribute on, -1 where off.
            classifier: one of `classifiers`.
            unrelated_perceptual: mean perceptual distance of unrelated test images, if known.
            unrelated_identity: mean identity similarity of unrelated test images, if known.

        Raises InputError on a name or strength that the table does not hold.
        """
        k = _place("classifier", classifier or self.classifiers[0], self.classifiers)
        target = _place("attribute", attribute, self.attributes)
        source, base = self.source_logits[k], self.reconstruction_logits[k]
        spread = np.asarray(spread, dtype=np.float64)
        edit = base
        extra: dict[str, Array | None] = {}
        if strength != 0:
            s = _place("strength", float(strength), self.strengths)
            edit = self.edit_logits[k, s]
            extra = {n: None if (v := getattr(self, n)) is None else v[s] for n in PER_IMAGE}
        return EditScores(
            source,
            base,
            edit,
            target,
            sign,
            spread,
            **extra,
            unrelated_perceptual=unrelated_perceptual,
            unrelated_identity=unrelated_identity,
        )

    def take(self, image_ids: Sequence[str]) -> ScoreTable:
        """The rows of these images, in this order. Raises InputError if one is not there."""
        rows = np.array([_place("image", i, self.image_ids) for i in image_ids], dtype=np.intp)
        changes: dict[str, Any] = {
            name: None if (v := getattr(self, name)) is None else np.take(v, rows, axis=axis)
            for name, axis in (*_LOGITS.items(), *dict.fromkeys(PER_IMAGE, 1).items())
        }
        return replace(self, image_ids=tuple(image_ids), **changes)

    def joined(self, other: ScoreTable) -> ScoreTable:
        """These strengths and those of another table of the same images, in increasing order."""
        if (self.image_ids, self.classifiers) != (other.image_ids, other.classifiers):
            raise InputError("only scores of the same images and classifiers can be joined")
        strengths = (*self.strengths, *other.strengths)
        order = np.argsort(strengths)
        changes: dict[str, Any] = {"strengths": tuple(strengths[i] for i in order)}
        for name, axis in (("edit_logits", 1), *((n, 0) for n in PER_IMAGE)):
            own, more = getattr(self, name), getattr(other, name)
            if own is not None:
                changes[name] = np.take(np.concatenate([own, more], axis), order, axis)
        return replace(self, **changes)

    def interpolated(self, strength: float) -> ScoreTable:
        """Scores at one strength in (0, largest of `strengths`], each linear between neighbours.

        Strength 0 is the reconstruction: its logits, distance 0 and identity 1. A score of which
        strength 0 is not known is left out below the smallest strength.
        """
        order = np.argsort(self.strengths)
        grid = np.array(self.strengths)[order]
        if not 0 < strength <= grid[-1]:
            raise InputError(f"strength {strength} is outside (0, {grid[-1]:g}]")
        above = int(np.searchsorted(grid, strength))
        low = grid[above - 1] if above else 0.0
        share = (strength - low) / (grid[above] - low)

        def between(values: Array, axis: int, at_zero: Array | float | None) -> Array | None:
            upper = np.take(values, [order[above]], axis)
            if above:
                lower = np.take(values, [order[above - 1]], axis)
            elif at_zero is None:
                return None
            else:
                lower = np.broadcast_to(np.asarray(at_zero), upper.shape)
            return np.asarray(lower + share * (upper - lower))

        changes: dict[str, Any] = {"strengths": (strength,)}
        base = self.reconstruction_logits[:, None]
        changes["edit_logits"] = between(self.edit_logits, 1, base)
        zeros = {"perceptual": 0.0, "identity": 1.0, "background": 0.0, "factor_worst": 0.0}
        for name in PER_IMAGE:
            if (values := getattr(self, name)) is not None:
                changes[name] = between(values, 0, zeros.get(name))
        return replace(self, **changes)

    def to_npz(self) -> bytes:
        """A compressed npz file of float32 arrays: the same scores give the same bytes."""
        arrays: dict[str, Any] = {
            name: np.array(getattr(self, name))
            for name in ("image_ids", "strengths", "attributes", "classifiers")
        }
        for name in (*_LOGITS, *PER_IMAGE):
            if (values := getattr(self, name)) is not None:
                arrays[name] = values.astype(np.float32)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> ScoreTable:
        """Read what `to_npz` wrote. Raises InvalidBenchmarkError on anything else."""
        try:
            arrays: dict[str, Any] = {**read_arrays(data)}
            names: dict[str, Any] = {k: tuple(arrays.pop(k).tolist()) for k in _NAMES}
            return cls(**names, **arrays)
        except READ_ERRORS as error:
            raise InvalidBenchmarkError(f"not a table of scores: {error}") from error

    @classmethod
    def from_csv(cls, text: str) -> ScoreTable:
        """Read the table of a record of schema 1 or 2: one row a picture.

        Columns: image_id, picture, strength, those of `PER_IMAGE` that are known, then one a
        classifier and attribute. Raises InvalidBenchmarkError on anything else.
        """
        try:
            return _read_csv(text)
        except (ValueError, KeyError, IndexError, csv.Error) as error:
            raise InvalidBenchmarkError(f"not a table of scores: {error}") from error


def _read_csv(text: str) -> ScoreTable:
    header, *rows = csv.reader(io.StringIO(text))
    kept = [c for c in header if c in PER_IMAGE]
    first = len(_KEYS) + len(kept)
    if tuple(header[: len(_KEYS)]) != _KEYS:
        raise ValueError(f"its columns start with {header[: len(_KEYS)]}")
    names = [tuple(c.rsplit("/", 1)) for c in header[first:]]
    classifiers = tuple(dict.fromkeys(c for c, _ in names))
    attributes = tuple(dict.fromkeys(a for _, a in names))
    if names != [(c, a) for c in classifiers for a in attributes]:
        raise ValueError("its logit columns are not classifiers by attributes")
    image_ids = tuple(dict.fromkeys(r[0] for r in rows))
    of_first = [r[2] for r in rows if r[:2] == [image_ids[0], "edit"]]
    strengths = tuple(float(s) for s in of_first)
    pictures = [("source", ""), ("reconstruction", "0.0"), *(("edit", s) for s in of_first)]
    expected = [(i, *p) for i in image_ids for p in pictures]
    if [tuple(r[:3]) for r in rows] != expected:
        raise ValueError("rows are missing, repeated or out of order")
    n, p, k, a = len(image_ids), len(pictures), len(classifiers), len(attributes)
    values = np.array([[float(v) for v in r[first:]] for r in rows]).reshape(n, p, k, a)
    logits = values.transpose(2, 1, 0, 3)  # [K, pictures, n, A]
    extra = {}
    for column, name in enumerate(kept, start=len(_KEYS)):
        cells = [float(r[column]) for r in rows if r[1] == "edit"]
        extra[name] = np.array(cells).reshape(n, p - 2).T
    return ScoreTable(
        image_ids,
        strengths,
        attributes,
        classifiers,
        logits[:, 0],
        logits[:, 1],
        logits[:, 2:],
        **extra,
    )


def _check_distinct(name: str, values: tuple[object, ...]) -> None:
    if len(set(values)) != len(values):
        raise InputError(f"{name} are not distinct")


def _place(kind: str, name: object, names: tuple[object, ...]) -> int:
    if name not in names:
        raise InputError(f"the table has no {kind} {name!r}", hint=f"it has {list(names)}")
    return names.index(name)
