"""Edits with some of a concept's latents only, or with all but some: what a causal test needs."""

from __future__ import annotations

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.methods.casl import CaslEditor
from casl_bench.methods.generation import HSpaceEditor


class PartOfMap(HSpaceEditor):
    """CASL's edit by a part of its map: delta_h = gain (W_mask z + b), the bias where asked for.

    Args:
        editor: the fitted edit.
        mask: [d_sae] bool, latents that take part.
        bias: whether b takes part.
    """

    def __init__(self, editor: CaslEditor, mask: Tensor, *, bias: bool) -> None:
        super().__init__(editor.backbone, editor.window, editor.noise_seed, editor.cost)
        self.editor, self.mask, self.bias = editor, mask, bias

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """[n, C, h, w] at strength 1."""
        part: Tensor = self.editor.alignment(h, t, mask=self.mask, bias=self.bias)
        return self.editor.gain * part


class WithoutLatents(HSpaceEditor):
    """The image without some latents: delta_h = -D(z_mask), D the SAE's decoder without its bias.

    Whatever else h holds stays, what the SAE does not reconstruct included. Strength 1 takes the
    latents away, at the timesteps at which CASL edits.

    Args:
        editor: whose SAE and window.
        mask: [d_sae] bool, latents to take away.
    """

    def __init__(self, editor: CaslEditor, mask: Tensor) -> None:
        super().__init__(editor.backbone, editor.window, editor.noise_seed, editor.cost)
        self.sae, self.mask = editor.alignment.sae, mask

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """[n, C, h, w] at strength 1."""
        return -self.sae.decode_delta(self.sae.encode(h, t) * self.mask[:, None, None], t)


def alike_latents(top: Tensor, activation: Tensor) -> Tensor:
    """[d_sae] bool: for each latent of `top` another that is as active, the strongest first.

    What taking latents away does depends on how much they are active; a control drawn at random
    among latents, most of which sleep, would do nothing whatever the truth.

    Args:
        top: [d_sae] bool.
        activation: [d_sae] mean activation.

    Raises:
        InputError: if more than half of the latents are asked for.
    """
    free = (~top).clone()
    if int(top.sum()) > int(free.sum()):
        raise InputError(f"{int(top.sum())} of {len(top)} latents leave too few to compare with")
    chosen = torch.zeros_like(top)
    order = torch.argsort(activation, descending=True, stable=True)
    for latent in order[top[order]].tolist():
        distance = (activation - activation[latent]).abs().masked_fill(~free, torch.inf)
        nearest = int(distance.argmin())
        chosen[nearest], free[nearest] = True, False
    return chosen
