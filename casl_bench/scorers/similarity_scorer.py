"""What a run asks of whoever tells how alike two images are."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
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


@runtime_checkable
class ComparesManyEdits(Similarity, Protocol):
    """Compares all edits of some images in one go, for less than one by one."""

    def compare(self, edits: Tensor, originals: Tensor, /) -> tuple[Tensor, Tensor | None]:
        """[S, n, 3, H, W] and [n, 3, H, W] → the two measures, [S, n] each, to the same bits."""
        ...


def compare(
    similarity: Similarity, edits: Tensor, originals: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Distance and likeness of all edits of some images.

    Args:
        similarity: tells them.
        edits: [S, n, 3, H, W] in [-1, 1].
        originals: [n, 3, H, W], what each of the S is compared with.

    Returns:
        [S, n] distances, and [S, n] cosines or None where nobody can tell.
    """
    if isinstance(similarity, ComparesManyEdits):
        return similarity.compare(edits, originals)
    distances = [similarity.perceptual_distance(images, originals) for images in edits]
    likenesses = [similarity.identity_similarity(images, originals) for images in edits]
    told = [alike for alike in likenesses if alike is not None]
    return torch.stack(distances), torch.stack(told) if told else None
