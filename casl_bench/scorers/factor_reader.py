"""What a run asks of whoever reads all known factors of a drawn image, where there are any."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from casl_bench.scorers.scorer import ScorerInfo


@runtime_checkable
class FactorReader(Protocol):
    """A frozen network that reads how an image was drawn.

    Attributes:
        info: its identity.
        names: of the factors: the attributes first, then what else is drawn.
    """

    info: ScorerInfo
    names: tuple[str, ...]

    def factors(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] → [n, C] float32 on the CPU, in standard deviations."""
        ...

    def change_of(self, moved: Tensor, attribute: str) -> tuple[Tensor, Tensor]:
        """Differences of `factors` [n, C] → what they say of an edit.

        Signed change of the attribute [n], mean absolute change of all other factors [n].
        """
        ...
