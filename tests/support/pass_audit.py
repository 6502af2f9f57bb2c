"""Which inputs a network is given twice in a run, image by image: work that may be spared.

A pass is known by network, weights and the bytes of what goes in. Rows that only fill a batch up
are left out. The frozen U-Net, its copies with other weights, CLIPs, classifiers and whatever else
the domain has are watched all the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from casl_bench.domains.domain import Domain
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.runs.progress import PhaseCosts

ENCODER, DECODER = "U-Net encoder", "U-Net decoder"
Repeat = tuple[str, str, str]
"""Network, phase in which it saw the input first, phase in which it saw it again."""


class PassAudit:
    """Watches the networks of a domain during a run.

    Args:
        costs: of the run, whose phases are told apart.

    Attributes:
        rows: (network, phase) → images, or texts, that were passed.
        repeats: those of them that the network had seen before.
        graphs: (network, phase) of passes that left something to be back-propagated.
    """

    def __init__(self, costs: PhaseCosts) -> None:
        self.rows: Counter[tuple[str, str]] = Counter()
        self.repeats: Counter[Repeat] = Counter()
        self.graphs: set[tuple[str, str]] = set()
        self._costs = costs
        self._seen: dict[bytes, str] = {}
        self._copies: dict[int, nn.Module] = {}  # held, so that no other one gets its id

    @contextmanager
    def watch(self, domain: Domain) -> Iterator[None]:
        """Watch every network of a domain within the block."""
        with ExitStack() as stack:
            for name, module in _networks(domain).items():
                stack.callback(module.register_forward_hook(self._hook(name)).remove)
            stack.enter_context(self._watched_unet(domain.backbone.unet))
            yield

    @contextmanager
    def _watched_unet(self, frozen: nn.Module) -> Iterator[None]:
        encode, decode, whole = Backbone.encode, Backbone.decode, Backbone.eps_with_grad

        def see(own: Backbone, half: str, output: Tensor, t: int, *inputs: Tensor) -> None:
            name = half if own.unet is frozen else f"{half}, other weights"
            self._note(name, [self._weights(own.unet, frozen), str(t)], *inputs)
            if output.requires_grad:
                self.graphs.add((name, self._costs.innermost))

        def watched_encode(own: Backbone, x_t: Tensor, t: int) -> EncoderState:
            state = encode(own, x_t, t)
            see(own, ENCODER, state.h, t, x_t)
            return state

        def watched_decode(
            own: Backbone, state: EncoderState, delta_h: Tensor | None = None
        ) -> Tensor:
            eps = decode(own, state, delta_h)
            h = state.h if delta_h is None else state.h + delta_h.to(state.h)
            see(own, DECODER, eps, state.t, state.x_t, h)
            return eps

        def watched_whole(own: Backbone, x_t: Tensor, t: int) -> Tensor:
            eps = whole(own, x_t, t)
            for half in (ENCODER, DECODER):
                see(own, half, eps, t, x_t)
            return eps

        with (
            patch.object(Backbone, "encode", watched_encode),
            patch.object(Backbone, "decode", watched_decode),
            patch.object(Backbone, "eps_with_grad", watched_whole),
        ):
            yield

    def _weights(self, unet: nn.Module, frozen: nn.Module) -> str:
        """Tells the weights of a copy apart: which copy, and how often these were written."""
        if unet is frozen:
            return ""
        self._copies[id(unet)] = unet
        return f"{id(unet)} {sum(p._version for p in unet.parameters())}"

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            self._note(name, [], inputs[0])
            if isinstance(output, Tensor) and output.requires_grad:
                self.graphs.add((name, self._costs.innermost))

        return hook

    def _note(self, name: str, what: list[str], *inputs: Tensor) -> None:
        phase, known = self._costs.innermost, [name, *what]
        columns = [x.detach().cpu().contiguous() for x in inputs]
        found = [_digest(known, [x[i] for x in columns]) for i in range(len(columns[0]))]
        while len(found) > 1 and found[-1] == found[-2]:  # it only fills the batch up
            found.pop()
        for digest in found:
            self.rows[name, phase] += 1
            if digest in self._seen:
                self.repeats[name, self._seen[digest], phase] += 1
            self._seen.setdefault(digest, phase)


def _networks(domain: Domain) -> dict[str, nn.Module]:
    """Name → the module through which every input of a network goes once, U-Net aside."""
    found = {c.info.name: _network(c) for c in domain.classifiers}
    for clip in (domain.guide_clip, domain.score_clip.clip):
        network: Any = _network(clip)
        found[f"{clip.name}, images"] = network.visual
        found[f"{clip.name}, texts"] = network.token_embedding
    embedder: Any = _network(domain.embedder)
    found[domain.embedder.info.name] = embedder.stages[0]
    if domain.factors is not None:
        found[domain.factors.info.name] = _network(domain.factors)
    return found


def _network(owner: Any) -> nn.Module:
    network: nn.Module = owner._network
    return network


def _digest(known: list[str], rows: list[Tensor]) -> bytes:
    digest = hashlib.sha256("|".join(known).encode())
    for row in rows:
        digest.update(torch.atleast_1d(row).numpy().tobytes())
    return digest.digest()
