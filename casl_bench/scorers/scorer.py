"""What a scorer is: a frozen network that turns edited pixels into numbers, an image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

ScorerKind = Literal["attributes", "text", "similarity", "factors"]


@dataclass(frozen=True)
class ScorerInfo:
    """What a record says of a scorer.

    Attributes:
        name: lower_snake.
        kind: what it tells: attribute logits, agreement with a text, similarity of two images, or
            how an image was drawn.
        version: raise it whenever the numbers may change with equal weights.
        weights_hash: SHA-256 of the weights file.
        guides: whether methods are trained against it; such a network must not mark them.
    """

    name: str
    kind: ScorerKind
    version: int
    weights_hash: str
    guides: bool = False


class Scorer(Protocol):
    """Anything with a scorer's identity; each kind has its own methods."""

    info: ScorerInfo
