"""Editors that change the pixels of a reconstruction: no diffusion model runs. For controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.h_space_editor import checked_strengths
from casl_bench.methods.method import (
    EditTask,
    FitCost,
    MethodConfig,
    OracleRenderer,
    UnfittedMethod,
)

PixelEdit = Callable[[float], Tensor]
"""Strength other than 0 → edited pixels [n, 3, H, W]."""


class PixelEditor:
    """Base of an `Editor` that has learned nothing: subclasses give `prepare`."""

    cost = FitCost()

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """The edit of these n images, after all work that does not depend on the strength."""
        raise NotImplementedError

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """[S, n, 3, H, W]: every image at every strength; see `Editor.edit`.

        Raises:
            InputError: if a strength is not finite.
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


class RerenderEditor(PixelEditor):
    """Draws images again with one attribute flipped, and adds that change of pixels.

    To the reconstruction, so that the baseline is that of every method; strength 1 is exactly the
    known edit.

    Args:
        render: of the data set.
        attribute: to flip.
    """

    def __init__(self, render: OracleRenderer, attribute: str) -> None:
        self.attribute = attribute
        self._render = render

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """Reconstruction + strength · (flipped render - image)."""
        change = self._render(inversions.image_ids, self.attribute) - inversions.x_0
        return lambda strength: inversions.reconstruction + strength * change


class RerenderMethod(UnfittedMethod[MethodConfig]):
    """Base of controls that render an image again with one attribute flipped."""

    config_class = MethodConfig

    def attribute(self, task: EditTask) -> str:
        """What is flipped: the concept's own attribute."""
        return task.concept.attribute

    def fit(self, task: EditTask) -> RerenderEditor:
        """Nothing to learn.

        Raises:
            InputError: where the task grants no renderer.
        """
        if task.oracle is None:
            raise InputError("an image is rendered again only where its factors are known")
        return RerenderEditor(task.oracle, self.attribute(task))
