"""The argument of a metric of edits: one classifier's logits at one strength, for one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array, check_array

DISTANCES = ("clip_similarity", "perceptual", "identity")


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
        identity: [n] similarity of the edit with the reconstruction, or None.
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

    def __post_init__(self) -> None:
        """Refuse wrong shapes, NaN and infinity."""
        n, a = check_array("base", self.base, 2).shape
        for name in ("source", "edit"):
            check_array(name, getattr(self, name), 2, (n, a))
        check_array("spread", self.spread, 1, (a,))
        if not (self.spread > 0).all():
            raise InputError("every attribute's spread must be positive")
        if not 0 <= self.target < a:
            raise InputError(f"target {self.target} is not one of {a} attributes")
        if self.sign not in (1, -1):
            raise InputError(f"sign must be +1 or -1, got {self.sign}")
        for name in DISTANCES:
            values = getattr(self, name)
            if values is not None:
                check_array(name, values, 1, (n,))

    def __len__(self) -> int:
        return len(self.base)

    @property
    def others(self) -> list[int]:
        """Columns of all attributes but the target."""
        return [j for j in range(self.base.shape[1]) if j != self.target]

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> EditScores:
        """The images at these places, in this order, repeats allowed."""
        i = np.asarray(index, dtype=np.intp)
        extra = {k: None if (v := getattr(self, k)) is None else v[i] for k in DISTANCES}
        return EditScores(
            self.source[i], self.base[i], self.edit[i], self.target, self.sign, self.spread, **extra
        )
