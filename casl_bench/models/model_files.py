"""A shipped model on disk: `model.safetensors` with `card.json` beside it, read with suspicion.

The card names the SHA-256 of the weights, so a file cut short, edited or swapped is refused before
any number is made with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save
from torch import Tensor, nn

from casl_bench.core.errors import InvalidBenchmarkError, as_line
from casl_bench.core.files import FileSum, hash_file, read_checked, write_bytes, write_json
from casl_bench.models.weights import CANNOT_BUILD, check_description, fitted_state, read_content

WEIGHTS = "model.safetensors"
CARD = "card.json"
_HINT = "restore the file from the package"

N = TypeVar("N", bound=nn.Module)


class _Card(BaseModel):
    """What every card says; the rest is for people."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    sha256: str
    config: dict[str, Any] = {}


@dataclass(frozen=True)
class ModelFiles:
    """A model as read from its folder."""

    folder: Path  # where it was read
    card: dict[str, Any]  # what card.json says; `config` in it builds the network
    tensors: dict[str, Tensor]  # the weights, floating point ones as float32
    weights_hash: str  # SHA-256 of the weights file, hex

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors named `prefix.…`, with the prefix taken off."""
        start = f"{prefix}."
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}

    def network(self, build: Callable[[Mapping[str, Any]], N]) -> N:
        """The network that `build` makes of the card's `config`, filled with the weights.

        Raises InvalidBenchmarkError where the two do not fit each other.
        """
        config, where = self.card["config"], str(self.folder / WEIGHTS)
        check_description(config, str(self.folder / CARD), _HINT)
        # Building draws random weights, which the caller's random state must not feel.
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):  # whatever size the card speaks of, it takes no memory
                own = build(config).state_dict()
            state = fitted_state(own, self.part("network"), where, hint=_HINT)
            network = build(config)
        network.load_state_dict(state)
        return network

    def calibration(self, count: int) -> tuple[Tensor, Tensor]:
        """Scale and bias [count] of the outputs. Raises InvalidBenchmarkError: there are none."""
        own = dict.fromkeys(("scale", "bias"), torch.empty(count))
        where = str(self.folder / WEIGHTS)
        state = fitted_state(own, self.part("calibration"), where, hint=_HINT)
        return state["scale"], state["bias"]


class ShippedModel:
    """Base of a model that is shipped as a folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it. Raises InvalidBenchmarkError as `read_model`, or if the card is of another."""
        files = read_model(folder)
        try:
            return cls._of_files(files)
        except CANNOT_BUILD as error:
            fault = f"the card describes no such model: {as_line(error)}"
            raise InvalidBenchmarkError(fault, where=str(folder / CARD), hint=_HINT) from error

    @classmethod
    def _of_files(cls, files: ModelFiles) -> Self:
        raise NotImplementedError


def read_model(folder: Path) -> ModelFiles:
    """Read and check a model folder.

    Raises InvalidBenchmarkError where a file is absent, is not what the card says, or holds a
    number that is not finite.
    """
    path = folder / WEIGHTS
    card = read_checked(_Card, folder / CARD, "model card", _HINT).model_dump()
    try:
        found = hash_file(path)
    except OSError as error:
        told = f"unreadable weights: {error.strerror or error}"
        raise InvalidBenchmarkError(told, where=str(path), hint=_HINT) from error
    if found != card["sha256"]:
        what = "weights are not those the card names (truncated or changed)"
        raise InvalidBenchmarkError(what, where=str(path), hint=_HINT)
    tensors = read_content(path, _HINT)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.float()
            if not torch.isfinite(tensor).all():
                raise InvalidBenchmarkError(
                    f"weights hold NaN or infinity in '{name}'", where=str(path), hint=_HINT
                )
    return ModelFiles(folder, card, tensors, found)


def write_model(folder: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write the weights in half precision and the card with their hash.

    The card is written last: a folder whose card is missing or old is refused by `read_model`.
    """
    half = {
        name: (t.half() if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in tensors.items()
    }
    write_bytes(folder / WEIGHTS, save(half))
    sums = FileSum.of(folder / WEIGHTS)
    write_json(folder / CARD, {**card, "sha256": sums.sha256, "bytes": sums.bytes})


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in name order, hex."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        if t.numel():
            digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
