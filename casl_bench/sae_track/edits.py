"""Images generated with a dictionary's code changed at a site, over a range of timesteps.

Everything starts at the stored x_t of the first timestep of the range: what comes before is the
same with and without the change, so no U-Net pass is spent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_step
from casl_bench.models.backbone import Backbone
from casl_bench.models.micro_batch import row_blocks
from casl_bench.sae.sae import HSpaceSae
from casl_bench.sae.sites import decode_at


class Change(Protocol):
    """What is done to activations while images are generated."""

    def __call__(self, h: Tensor, place: int, rows: slice) -> Tensor:
        """Activations [m, C, h, w] of these rows, at a place of the timesteps → what goes on."""
        ...


@dataclass(frozen=True)
class Walk:
    """Where an edit begins and which steps it changes.

    Attributes:
        timesteps: of inversion and generation, increasing.
        low: first place that is changed.
        high: last place that is changed; generation starts here.
    """

    timesteps: tuple[int, ...]
    low: int
    high: int

    @classmethod
    def of(cls, timesteps: Sequence[int], low: int, high: int) -> Walk:
        """Of timesteps low <= t < high; the nearest one where none is among them."""
        places = [i for i, t in enumerate(timesteps) if low <= t < high]
        if not places:
            middle = (low + min(high, timesteps[-1])) / 2
            places = [min(range(len(timesteps)), key=lambda i: abs(timesteps[i] - middle))]
        return cls(tuple(timesteps), places[0], places[-1])

    @property
    def middle(self) -> int:
        """The place whose timestep stands for the range where one is read."""
        return (self.low + self.high) // 2

    @property
    def places(self) -> list[int]:
        """All places that are changed."""
        return [*range(self.low, self.high + 1)]


@torch.no_grad()
def generate(backbone: Backbone, x_t: Tensor, walk: Walk, site: str, change: Change) -> Tensor:
    """[n, 3, H, W] images from x_t [n, 3, H, W] at the walk's highest place, on the CPU."""
    steps, images = walk.timesteps, []
    for rows in row_blocks(len(x_t), backbone.micro_batch):
        x = x_t[rows].to(backbone.device)
        for place in range(walk.high, -1, -1):
            t = steps[place]
            t_next = steps[place - 1] if place else -1
            state = backbone.encode(x, t)
            if place >= walk.low:
                replace = partial(change, place=place, rows=rows)
                eps, _ = decode_at(backbone, state, site, replace)
            else:
                eps = backbone.decode(state)
            ab_t, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
            x = ddim_step(state.x_t, eps, eps, ab_t, ab_next)
        images.append(x.cpu())
    return torch.cat(images)


def together(changes: Sequence[tuple[int, Change]]) -> Change:
    """Several edits as one, so that their images fill the network's batches.

    `changes` holds, in order of the rows, how many rows each edit has and what it does; each is
    called with rows counted from its own first one.
    """

    def change(h: Tensor, place: int, rows: slice) -> Tensor:
        parts, start = [], 0
        for count, own in changes:
            first, last = max(start, rows.start), min(start + count, rows.stop)
            if first < last:
                part = h[first - rows.start : last - rows.start]
                parts.append(own(part, place, slice(first - start, last - start)))
            start += count
        return torch.cat(parts)

    return change


def interchange(
    sae: HSpaceSae, source: Callable[[int], Tensor], latents: Tensor, walk: Walk
) -> Change:
    """Give an image the codes that another one has in some latents.

    `source` gives the other images' codes of these latents, [n, k, h, w] at a place of the walk.
    """

    def change(h: Tensor, place: int, rows: slice) -> Tensor:
        t = walk.timesteps[place]
        wanted = source(place)[rows]
        return h + move(sae, wanted - sae.encode(h, t)[:, latents], latents, t)

    return change


def ablate(sae: HSpaceSae, latents: Tensor, walk: Walk) -> Change:
    """Set some latents to 0; what the dictionary does not reconstruct stays."""

    def change(h: Tensor, place: int, rows: slice) -> Tensor:
        t = walk.timesteps[place]
        return h - move(sae, sae.encode(h, t)[:, latents], latents, t)

    return change


def steer(sae: HSpaceSae, shift: Tensor, latents: Tensor, strength: Tensor, walk: Walk) -> Change:
    """Add a shift [k, h, w] of some latents, times each row's strength [n]."""

    def change(h: Tensor, place: int, rows: slice) -> Tensor:
        factors = strength[rows][:, None, None, None]
        return h + move(sae, factors * shift[None], latents, walk.timesteps[place])

    return change


def move(sae: HSpaceSae, dz: Tensor, latents: Tensor, t: int) -> Tensor:
    """What a change of some latents [n, k, h, w] adds to activations, [n, C, h, w]."""
    scale = sae.scale[sae.timesteps.index(t)]
    moved: Tensor = torch.einsum("nkhw,kc->nchw", dz, sae.sae.W_dec[latents]) * scale
    return moved
