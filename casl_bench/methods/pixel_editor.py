"""Editors that change the pixels of a reconstruction: no diffusion model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.h_space_editor import checked_strengths
from casl_bench.methods.method import FitCost

PixelEdit = Callable[[float], Tensor]
"""Strength other than 0 → edited pixels [n, 3, H, W]."""


class PixelEditor:
    """Base of an `Editor`: subclasses give `prepare`, and `state` where they have learned."""

    cost = FitCost()

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """The edit of these n images, after all work that does not depend on the strength."""
        raise NotImplementedError

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """[S, n, 3, H, W]: every image at every strength; see `Editor.edit`.

        Raises InputError if a strength is not finite.
        """
        factors = checked_strengths(strengths).tolist()
        result = inversions.reconstruction[None].repeat(len(factors), 1, 1, 1, 1)
        if len(inversions) and any(factors):
            edited = self.prepare(inversions)
            for place, factor in enumerate(factors):
                if factor != 0:
                    result[place] = edited(factor)
        return result

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class AddedPicture(PixelEditor):
    """Adds one picture [3, H, W], times the strength, to every reconstruction."""

    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self.cost = FitCost(picture.numel())

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """Reconstruction + strength · picture."""
        return lambda strength: inversions.reconstruction + strength * self.picture

    def state(self) -> dict[str, Tensor]:
        """The picture."""
        return {"picture": self.picture}
