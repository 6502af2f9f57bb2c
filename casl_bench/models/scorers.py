"""What a scorer is: a frozen network that turns edited pixels into numbers, an image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.models.micro_batch import in_micro_batches

ScorerKind = Literal["attributes", "text", "similarity", "factors"]


@dataclass(frozen=True)
class ScorerInfo:
    """What a record says of a scorer."""

    name: str  # lower_snake
    # What it measures: attribute logits, agreement with a text, similarity of two images, or the
    # factors of a rendered image
    kind: ScorerKind
    version: int  # raise it whenever the numbers may change with equal weights
    weights_hash: str  # SHA-256 of the weights file


class CalibratedNetwork:
    """A frozen network on images of one size, whose outputs are scaled and shifted.

    `network` maps [n, 3, S, S] to [n, C] raw numbers; `scale` and `bias` are [C], S is
    `image_size`.
    """

    def __init__(
        self, info: ScorerInfo, network: nn.Module, scale: Tensor, bias: Tensor, image_size: int
    ) -> None:
        self.info, self.image_size, self.scale, self.bias = info, image_size, scale, bias
        self._network = network.eval().requires_grad_(False)

    def outputs(self, pixels: Tensor) -> Tensor:
        """Scale · raw + bias [n, C] float32, through which gradients flow to pixels within [-1, 1].

        Of pixels [n, 3, S, S]; values outside [-1, 1] are clamped, as a viewer would. A row depends
        on its image alone. Raises InputError: images of another size.
        """
        expected = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise InputError(
                f"images of shape {tuple(pixels.shape[1:])}, not {expected}", where=self.info.name
            )
        if not len(pixels):
            return torch.empty(0, len(self.scale))
        raw = in_micro_batches(self._network, pixels.float().clamp(-1, 1))
        return raw * self.scale + self.bias


@runtime_checkable
class AttributeScorer(Protocol):
    """A frozen network with one logit an attribute."""

    info: ScorerInfo
    attributes: tuple[str, ...]  # names of the logits

    def logits(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] → [n, A] float32 on the CPU; above 0 the attribute is there."""


@runtime_checkable
class Differentiable(AttributeScorer, Protocol):
    """A scorer that shows how its logits depend on the pixels. For controls: no method sees one."""

    def logits_with_grad(self, pixels: Tensor) -> Tensor:
        """`logits`, through which gradients flow to the pixels."""


@runtime_checkable
class FactorReader(Protocol):
    """A frozen network that reads the factors of a rendered image."""

    info: ScorerInfo
    names: tuple[str, ...]  # of the factors: the attributes first, then the continuous ones

    def factors(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] → [n, C] float32 on the CPU, in standard deviations."""

    def change_of(self, moved: Tensor, attribute: str) -> tuple[Tensor, Tensor]:
        """Differences of `factors` [n, C] → what they say of an edit.

        Signed change of the attribute [n], mean absolute change of all other factors [n].
        """

    def worst_change_of(self, moved: Tensor, *attributes: str) -> Tensor:
        """Differences of `factors` [n, C] → the largest change of a factor beside these [n] >= 0.

        As a share of that factor's range: 1 turns an attribute on or off entirely.
        """


@runtime_checkable
class Similarity(Protocol):
    """Distance of looks, and likeness of the person where there is one."""

    info: ScorerInfo

    def perceptual_distance(self, edited: Tensor, original: Tensor, /) -> Tensor:
        """[n, 3, H, W] in [-1, 1] twice → [n] >= 0 on the CPU, 0 for equal images."""

    def identity_similarity(self, edited: Tensor, original: Tensor, /) -> Tensor | None:
        """The same images → cosine [n] in [-1, 1] on the CPU; None where there is no person.

        The order matters to a scorer that looks for the face: it looks at the original.
        """


@runtime_checkable
class ComparesManyEdits(Similarity, Protocol):
    """Compares all edits of some images in one go, for less than one by one."""

    def compare(self, edits: Tensor, originals: Tensor, /) -> tuple[Tensor, Tensor | None]:
        """[S, n, 3, H, W] and [n, 3, H, W] → the two measures, [S, n] each, to the same bits."""


def compare(
    similarity: Similarity, edits: Tensor, originals: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Distances of all edits of some images, [S, n], and cosines, or None where there is no person.

    Of edits [S, n, 3, H, W] in [-1, 1] and what each of the S is compared with, [n, 3, H, W].
    """
    if isinstance(similarity, ComparesManyEdits):
        return similarity.compare(edits, originals)
    distances = [similarity.perceptual_distance(images, originals) for images in edits]
    likenesses = [similarity.identity_similarity(images, originals) for images in edits]
    known = [alike for alike in likenesses if alike is not None]
    return torch.stack(distances), torch.stack(known) if known else None
