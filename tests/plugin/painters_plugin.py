"""`--plugin` with this file adds the toy domain and four methods that know its perfect edits.

With `FAULTY` each is broken in a way of its own, its version unchanged: what a gate is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.conformance.toy_domain import ATTRIBUTES, ToyShapes, register_toy_domain
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import METHODS, EditTask, FitCost, MethodConfig, MethodInfo

FAULTY = False
SLIP = 0.2
"""How much of every other attribute's edit comes with the one asked for."""

TOY = ToyShapes()
KNOWN = {
    pixels.numpy().tobytes(): image_id
    for split in ("train", "validation", "test")
    for batch in [TOY.load(split, 256)]
    for image_id, pixels in zip(batch.image_ids, batch.pixels, strict=True)
}


class Painter:
    """Adds up atoms, one an attribute: the pictures' differences from those with it flipped."""

    def __init__(self, shares: Tensor, fault: str = "") -> None:
        self.cost, self.shares, self.fault = FitCost(), shares, fault

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        # Ids say nothing to a method: each picture is looked up by its pixels.
        ids = [KNOWN[pixels.contiguous().numpy().tobytes()] for pixels in inversions.x_0]
        atoms = [TOY.oracle(ids, a) - inversions.x_0 for a in ATTRIBUTES]
        if self.fault == "shuffled_decoder":
            atoms = [*atoms[1:], atoms[0]]
        change = sum(share * atom for share, atom in zip(self.shares, atoms, strict=True))
        if self.fault == "wrong_sign":
            change = -change
        if self.fault == "half_strength":
            change = change / 2
        if self.fault == "one_row_off":
            change = torch.roll(change, 1, dims=-2)
        return torch.stack([inversions.reconstruction + s * change for s in strengths])

    def state(self) -> dict[str, Tensor]:
        return {"shares": self.shares}


def painter(name: str) -> type:
    class Method:
        info: ClassVar[MethodInfo] = MethodInfo(name=name, title=name, source="a test", version=1)

        def __init__(self, config: MethodConfig | None = None) -> None:
            self.config = config or MethodConfig()

        def fit(self, task: EditTask) -> Painter:
            own = [1.0 if a == task.concept.attribute else SLIP for a in ATTRIBUTES]
            return Painter(torch.tensor(own), name if FAULTY else "")

        def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Painter:
            return self.fit(task)

    return Method


class ByChance:
    """What a random direction of a working U-Net does: moves all attributes by chance."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_direction", title="noise", source="a test", version=1, control=True,
        matched=True, draws=True,
    )  # fmt: skip

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> Painter:
        signs = torch.randn(len(ATTRIBUTES), generator=task.generator).sign()
        return Painter(signs * (0.7 + 0.6 * torch.rand(len(signs), generator=task.generator)))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Painter:
        return Painter(state["shares"])


register_toy_domain()
METHODS._factories.pop("random_direction")
METHODS.register("random_direction", ByChance)
for title in ("wrong_sign", "half_strength", "shuffled_decoder", "one_row_off"):
    METHODS.register(title, painter(title))
