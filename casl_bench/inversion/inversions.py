"""Inverted images: what every method edits, made once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Inversions:
    """Images with the noise that regenerates them.

    Attributes:
        image_ids: n ids.
        timesteps: the increasing walk 0 = s_0 < … < s_max, shared by inversion and generation.
        x_0: [n, 3, H, W] float32 in [-1, 1], the images.
        x_T: [n, 3, H, W] float32, the noise at s_max.
        reconstruction: [n, 3, H, W] float32, the image regenerated from x_T without any edit:
            the baseline of every edit (not clamped).
    """

    image_ids: tuple[str, ...]
    timesteps: tuple[int, ...]
    x_0: Tensor
    x_T: Tensor
    reconstruction: Tensor

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, index: Sequence[int]) -> Inversions:
        """The inversions at these places, in this order."""
        i = list(index)
        return Inversions(
            tuple(self.image_ids[k] for k in i),
            self.timesteps,
            self.x_0[i],
            self.x_T[i],
            self.reconstruction[i],
        )
