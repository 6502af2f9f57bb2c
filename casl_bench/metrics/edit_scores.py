"""What a metric of edits sees: one classifier's logits at one strength, for one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError

Array = NDArray[np.float64]


def check_array(
    name: str, values: ArrayLike, ndim: int, shape: tuple[int, ...] | None = None
) -> Array:
    """The values as float64.

    Raises:
        InputError: on another number of axes or shape, NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or (shape is not None and array.shape != shape):
        expected = f"shape {list(shape)}" if shape is not None else f"{ndim} axes"
        raise InputError(f"{name} has shape {list(array.shape)}, expected {expected}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity")
    return array


def check_spread(spread: ArrayLike, count: int) -> Array:
    """The spread as float64 [count]. Raises InputError unless all are finite and positive."""
    scale = check_array("spread", spread, 1, (count,))
    if not (scale > 0).all():
        raise InputError("every attribute's spread must be positive")
    return scale


ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Networks compute in float32: what varies by less than this share of its size does not vary."""


def spread_of(values: NDArray[np.floating], axis: int) -> Array:
    """Standard deviation along an axis; 0, not a rounding error, where the values do not vary."""
    spread: Array = values.std(axis)
    return np.where(spread <= ROUNDING * np.abs(values).max(axis), 0.0, spread)


PER_IMAGE = (
    "clip_similarity",
    "perceptual",
    "identity",
    "locality",
    "background",
    "factor_target",
    "factor_others",
    "factor_worst",
)
"""Columns that are there only where they could be measured."""


@dataclass(frozen=True)
class EditScores:
    """Scores of one classifier at one strength, for one target: the argument of a metric.

    Attributes:
        source: [n, A] logits of the source images.
        base: [n, A] logits of their reconstructions, the baseline of every edit.
        edit: [n, A] logits of the edited images.
        target: column of the concept's attribute.
        sign: +1 where the edit is to turn the attribute on, -1 where off.
        spread: [A] standard deviation of each logit over real source images, > 0; the unit in
            which different attributes' changes can be compared.
        clip_similarity: [n] cosine of the image's change with the text's, or None.
        perceptual: [n] distance of the edit from the reconstruction, or None.
        identity: [n] similarity of the edit with the reconstruction, in [-1, 1], or None.
        locality: [n] share of the changed pixels' energy within the region that the perfect edit
            changes, in [0, 1], or None where that edit is not known (see `pixel_locality`).
        background: [n] change outside that region, >= 0, 1 for an unrelated image, or None
            likewise (see `background_change`).
        factor_target: [n] change of the target's known factor, + where it is turned on, or None.
        factor_others: [n] mean absolute change of the other known factors, >= 0, in the unit of
            `factor_target`, or None.
        factor_worst: [n] largest change of another known factor, >= 0, as a share of its range, or
            None.
        unrelated_perceptual: mean `perceptual` of pairs of unrelated test images, > 0, or None.
        unrelated_identity: mean `identity` of such pairs, in [-1, 1), or None.
    """

    source: Array
    base: Array
    edit: Array
    target: int
    sign: int
    spread: Array
    clip_similarity: Array | None = None
    perceptual: Array | None = None
    identity: Array | None = None
    locality: Array | None = None
    background: Array | None = None
    factor_target: Array | None = None
    factor_others: Array | None = None
    factor_worst: Array | None = None
    unrelated_perceptual: float | None = None
    unrelated_identity: float | None = None

    def __post_init__(self) -> None:
        """Refuse wrong shapes, NaN, infinity and what is out of its range."""
        n, a = check_array("base", self.base, 2).shape
        for name in ("source", "edit"):
            check_array(name, getattr(self, name), 2, (n, a))
        check_spread(self.spread, a)
        if not 0 <= self.target < a:
            raise InputError(f"target {self.target} is not one of {a} attributes")
        if self.sign not in (1, -1):
            raise InputError(f"sign must be +1 or -1, got {self.sign}")
        for name in PER_IMAGE:
            values = getattr(self, name)
            if values is not None:
                check_array(name, values, 1, (n,))
        if self.locality is not None and ((self.locality < 0) | (self.locality > 1)).any():
            raise InputError("locality is a share in [0, 1]")
        for name in ("background", "factor_others", "factor_worst"):
            values = getattr(self, name)
            if values is not None and (values < 0).any():
                raise InputError(f"{name} is an absolute change, never negative")
        distance, identity = self.unrelated_perceptual, self.unrelated_identity
        if distance is not None and not 0 < distance < np.inf:
            raise InputError(f"unrelated images lie at a distance > 0, got {distance}")
        if identity is not None and not -1 <= identity < 1:
            raise InputError(f"unrelated images have an identity in [-1, 1), got {identity}")

    def __len__(self) -> int:
        return len(self.base)

    @property
    def others(self) -> list[int]:
        """Columns of all attributes but the target."""
        return [j for j in range(self.base.shape[1]) if j != self.target]

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> EditScores:
        """The images at these places, in this order, repeats allowed."""
        i = np.asarray(index, dtype=np.intp)
        names = ("source", "base", "edit", *PER_IMAGE)
        rows: dict[str, Any] = {k: None if (v := getattr(self, k)) is None else v[i] for k in names}
        return replace(self, **rows)
