"""`--plugin` with this file breaks CASL as the environment variable `CASL_FAULT` says.

Its version stays, as it does where somebody breaks a method without noticing: what the gate is for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.casl import CaslEditor, ConceptAlignment
from casl_bench.models.backbone import EncoderState

_init, _edit = CaslEditor.__init__, CaslEditor.edit


def wrong_sign(editor: CaslEditor) -> None:
    """What should turn the concept on turns it off."""
    editor.gain = -editor.gain


def half_strength(editor: CaslEditor) -> None:
    """Strength 1 does half of what it did."""
    editor.gain = editor.gain / 2


def _another_latent(alignment: ConceptAlignment) -> Tensor:
    """[d_sae] for each latent the one that it is taken for."""
    return torch.randperm(alignment.W.shape[1], generator=torch.Generator().manual_seed(0))


def shuffled_decoder(editor: CaslEditor) -> None:
    """Each latent gets the direction in h-space of another one."""
    alignment = editor.alignment
    with torch.no_grad():
        alignment.W.copy_(alignment.W[:, _another_latent(alignment)])


def leak(editor: CaslEditor) -> None:
    """Each latent also gets a share `CASL_LEAK` of another one's direction: crosstalk."""
    share, alignment = float(os.environ["CASL_LEAK"]), editor.alignment
    with torch.no_grad():
        alignment.W.add_(share * alignment.W[:, _another_latent(alignment)])


def one_layer_off(editor: CaslEditor) -> None:
    """delta_h goes to the last skip connection, which has h's shape, instead of h."""
    backbone, decode = editor.backbone, editor.backbone.decode

    def beside(state: EncoderState, delta_h: Tensor | None = None) -> Tensor:
        if delta_h is None:
            return decode(state)
        skips = (*state.skips[:-1], state.skips[-1] + delta_h.to(state.h))
        return decode(replace(state, skips=skips))

    def edit(inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        # Only while this editor edits: the backbone is everybody's.
        backbone.decode = beside  # type: ignore[method-assign]
        try:
            return _edit(editor, inversions, strengths)
        finally:
            del backbone.decode  # type: ignore[method-assign]

    editor.edit = edit  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[CaslEditor], None]] = {
    fault.__name__: fault
    for fault in (wrong_sign, half_strength, shuffled_decoder, leak, one_layer_off)
}


def _broken(self: CaslEditor, *arguments: object) -> None:
    _init(self, *arguments)  # type: ignore[arg-type]
    FAULTS[os.environ["CASL_FAULT"]](self)


CaslEditor.__init__ = _broken  # type: ignore[method-assign]
