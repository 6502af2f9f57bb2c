"""Where in the U-Net a dictionary reads and writes: h-space, or the output of an up block.

A site is named on the command line: `mid` is the mid block's output (h), `up_0` the output of the
last residual block of the first up block, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError, UsageError
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.micro_batch import pad_rows, row_blocks
from casl_bench.sae.sae import ActivationMaps

MID = "mid"

Replace = Callable[[Tensor], Tensor]
"""Activations [n, C, h, w] of n images → what goes on in their place, same shape."""


def check_site(backbone: Backbone, site: str) -> None:
    """Refuse, with a UsageError, a site that the network does not have."""
    known = [MID, *(f"up_{i}" for i in range(len(backbone.unet.up_blocks)))]
    if site not in known:
        raise UsageError(f"unknown site '{site}'", hint=f"known: {', '.join(known)}")


def _module(backbone: Backbone, site: str) -> nn.Module:
    check_site(backbone, site)
    found = re.fullmatch(r"up_(\d+)", site)
    assert found is not None, "h itself is no module's hook"
    block: Any = backbone.unet.up_blocks[int(found[1])]
    module: nn.Module = block.resnets[-1]
    return module


@contextmanager
def _hooked(module: nn.Module, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda m, inputs, output: function(output))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def decode_at(
    backbone: Backbone, state: EncoderState, site: str = MID, replace: Replace | None = None
) -> tuple[Tensor, Tensor]:
    """The decoder half with the activations at a site seen and, where asked, replaced.

    Returns eps [n, 3, H, W], and the activations as they were before, [n, C, h, w] on the CPU.
    `replace` is called once per micro-batch with its own rows alone, in order.
    """
    if site == MID:
        h = state.h.cpu()
        if replace is None:
            return backbone.decode(state), h
        new = torch.cat([replace(h[rows]) for rows in row_blocks(len(h), backbone.micro_batch)])
        return backbone.decode(state, new - h), h
    seen, eps = [], []
    for rows in row_blocks(len(state), backbone.micro_batch):
        part = state.take(torch.arange(rows.start, rows.stop))

        def look(output: Tensor, count: int = len(part)) -> Tensor | None:
            own = output[:count].float().cpu()
            seen.append(own)
            if replace is None:
                return None
            return pad_rows(replace(own), len(output)).to(output)

        with _hooked(_module(backbone, site), look):
            eps.append(backbone.decode(part))
    return torch.cat(eps), torch.cat(seen)


class SiteMaps:
    """Activations at another site than h, of stored x_t: `ActivationMaps` in memory.

    Args:
        backbone: whose activations.
        store: x_t at every visited timestep.
        site: other than `mid`.
        images: how many of the store's images, the first ones.
        steps: places of the timesteps that are computed; others are refused when read.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: TrajectoryStore,
        site: str,
        images: int | None = None,
        steps: Sequence[int] | None = None,
    ) -> None:
        self.timesteps, self._count = store.timesteps, images or len(store)
        self._maps: dict[int, Tensor] = {}
        for step in range(len(store.timesteps)) if steps is None else steps:
            parts = [
                decode_at(
                    backbone, backbone.encode(store.x_t(step, rows), store.timesteps[step]), site
                )[1]
                for rows in row_blocks(self._count, backbone.micro_batch)
            ]
            self._maps[step] = torch.cat(parts)

    def __len__(self) -> int:
        return self._count

    def h(self, step: int, rows: Any = None) -> Tensor:
        """[m, C, h, w] at place `step` of the timesteps."""
        return self._maps[step] if rows is None else self._maps[step][rows]


class OfRange:
    """The maps of some timesteps alone: low <= t < high.

    Raises InputError where there is none.
    """

    def __init__(self, maps: ActivationMaps, low: int, high: int) -> None:
        self._maps = maps
        self._places = [i for i, t in enumerate(maps.timesteps) if low <= t < high]
        self.timesteps = tuple(maps.timesteps[i] for i in self._places)
        if not self._places:
            raise InputError(f"no timestep is in {low} <= t < {high}")

    def __len__(self) -> int:
        return len(self._maps)

    def h(self, step: int, rows: Any = None) -> Tensor:
        """[m, C, h, w] at place `step` of these timesteps."""
        return self._maps.h(self._places[step], rows)


def site_shape(backbone: Backbone, site: str) -> tuple[int, int, int]:
    """(C, h, w) of a site. One U-Net pass of one image, for a site other than `mid`."""
    if site == MID:
        return backbone.h_shape
    x = torch.zeros(1, 3, backbone.image_size, backbone.image_size)
    _, seen = decode_at(backbone, backbone.encode(x, 0), site)
    channels, height, width = seen.shape[1:]
    return channels, height, width
