"""What a run asks of whoever tells how alike two images are."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from casl_bench.scorers.scorer import ScorerInfo


@runtime_checkable
class Similarity(Protocol):
    """Distance of looks, and likeness of the person where there is one.

    Attributes:
        info: its identity.
    """

    info: ScorerInfo

    def perceptual_distance(self, edited: Tensor, original: Tensor, /) -> Tensor:
        """[n, 3, H, W] in [-1, 1] twice → [n] >= 0 on the CPU, 0 for equal images."""
        ...

    def identity_similarity(self, edited: Tensor, original: Tensor, /) -> Tensor | None:
        """The same images → cosine [n] in [-1, 1] on the CPU; None where nobody can tell.

        The order matters to a scorer that looks for the face: it looks at the original.
        """
        ...
