"""Weights from a file into a network, under other names where need be, each checked."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import regular

FAULTS_TOLD = 4
# How torch names what it will not run.
_CODE = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")
# What a damaged pickle makes torch raise, whichever byte is hit.
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
)
# Averaged weights come first: they are what samples are generated with.
_EMA_KEYS = ("ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema", "params_ema")
_MODEL_KEYS = ("state_dict", "model", "model_state_dict", "params", "unet", "net", "weights")
# A level down, an average also hides behind these.
_INNER_KEYS = ("shadow", "module", "average")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_DEPTH = 3
_KEYS_TOLD = 12


class UnfitWeightsError(InvalidBenchmarkError):
    """Weights and network do not fit each other; the message names the first faults.

    Attributes:
        faults: each tensor that is missing, unexpected, of another shape or not finite.
    """

    def __init__(
        self,
        faults: Sequence[str],
        *,
        where: str,
        hint: str = "fetch or train the weights again",
        told: int = FAULTS_TOLD,
    ) -> None:
        self.faults = tuple(faults)
        more = len(faults) - told
        text = ", ".join(faults[:told]) + (f" and {more} more" if more > 0 else "")
        super().__init__(f"weights do not fit: {text}", where=where, hint=hint)


@dataclass(frozen=True)
class Source:
    """Where a network's tensor comes from."""

    key: str  # its name in the file
    # What is taken of the tensor under that name
    part: Callable[[Tensor], Tensor] = lambda tensor: tensor


def fitted_state(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    where: str,
    source_of: Callable[[str], Source] = Source,
) -> dict[str, Tensor]:
    """A state dict for a network, from weights that may be named and packed otherwise.

    Every name of `own`, the network's state dict, in its precision. `source_of` says where the
    tensor of this name comes from; default: the same name. Raises UnfitWeightsError naming, in the
    file's names, what is missing, unexpected, of another shape or not finite.
    """
    state: dict[str, Tensor] = {}
    faults: list[str] = []
    used = set()
    for name, wanted in own.items():
        source = source_of(name)
        used.add(source.key)
        tensor = weights.get(source.key)
        if tensor is None:
            faults.append(f"missing {source.key}")
            continue
        try:
            part = source.part(tensor)
        except (RuntimeError, IndexError, ValueError):
            faults.append(f"{source.key} is {list(tensor.shape)}, which cannot be taken apart")
            continue
        if part.shape != wanted.shape:
            faults.append(f"{source.key} is {list(part.shape)}, not {list(wanted.shape)}")
        elif not bool(torch.isfinite(part).all()):
            faults.append(f"{source.key} holds NaN or infinity")
        else:
            state[name] = part.to(wanted.dtype)
    faults += [f"unexpected {key}" for key in weights if key not in used]
    faults = list(dict.fromkeys(faults))
    if faults:
        raise UnfitWeightsError(faults, where=where)
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file. Raises InvalidBenchmarkError where it is absent or damaged."""
    try:
        return load_file(regular(path))
    except (OSError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"unreadable weights: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            hint="fetch or train them again",
        ) from error


def load_torch_file(path: Path) -> Any:
    """The content of a file that torch saved, read without running any code in it.

    Raises InvalidBenchmarkError if the file is absent, damaged or unsafe.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of a pickle protocol that is not its own; what it then reads is sound.
            warnings.simplefilter("ignore")
            return torch.load(regular(path), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        text = str(error)
        code = _CODE.search(text)
        if code is not None:
            raise InvalidBenchmarkError(
                f"unreadable weights: the file holds '{code[1]}', which is code and is not run",
                where=str(path),
                hint="save the tensors alone",
            ) from error
        # torch's own advice on a pickle that it cannot read is to run what is in it.
        no_pickle = isinstance(error, pickle.UnpicklingError)
        line = "" if no_pickle else next(iter(text.splitlines()), "")
        raise InvalidBenchmarkError(
            f"unreadable weights: {line or 'not a file of torch, or damaged'}",
            where=str(path),
            hint="fetch the file again",
        ) from error


def read_torch_file(path: Path) -> dict[str, Any]:
    """A dict that torch saved, as by `load_torch_file`. Raises InvalidBenchmarkError: no dict."""
    content = load_torch_file(path)
    if not isinstance(content, dict):
        raise InvalidBenchmarkError("not a dict of weights", where=str(path))
    return content


@dataclass(frozen=True)
class CheckpointFile:
    """The weights of a published file."""

    weights: dict[str, Tensor]  # name → tensor, wrappers' prefixes taken off
    # Which of the file's parts they are and why, for a person; empty where it is bare
    taken: str = ""


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read and unwrap a published weights file: safetensors, or anything that torch saves.

    Raises InvalidBenchmarkError if the file is absent, damaged, unsafe, or holds no state dict; the
    message names the keys of its top level.
    """
    if path.suffix == ".safetensors":
        return CheckpointFile(_without_prefixes(read_safetensors(path)))
    content = load_torch_file(path)
    if isinstance(content, list | tuple):
        found = _from_list(content)
    elif isinstance(content, Mapping):
        found = _from_mapping(content, 0)
    else:
        found = None
    if found is None:
        raise InvalidBenchmarkError(
            f"no state dict is found, the file holds {_described(content)}",
            where=str(path),
            hint="save the network's state dict alone",
        )
    return found


def _from_mapping(content: Mapping[Any, Any], depth: int) -> CheckpointFile | None:
    if _is_state(content):
        return CheckpointFile(_without_prefixes(content))
    if depth == _MAX_DEPTH:
        return None
    averaged = _first_state(content, (*_EMA_KEYS, *(_INNER_KEYS if depth else ())), depth)
    plain = _first_state(content, _MODEL_KEYS, depth)
    return _chosen(averaged, plain)


def _first_state(
    content: Mapping[Any, Any], keys: tuple[str, ...], depth: int
) -> CheckpointFile | None:
    for key in keys:
        inner = content.get(key)
        if isinstance(inner, Mapping):
            found = _from_mapping(inner, depth + 1)
            if found is not None:
                below = f" › {found.taken}" if found.taken else ""
                return CheckpointFile(found.weights, f"'{key}'{below}")
    return None


def _from_list(content: list[Any] | tuple[Any, ...]) -> CheckpointFile | None:
    """Training files of the DDPM family: [model, optimiser, epoch, step, ema]."""
    states = [
        CheckpointFile(_without_prefixes(entry), f"entry {i} of {len(content)}")
        for i, entry in enumerate(content)
        if isinstance(entry, Mapping) and _is_state(entry)
    ]
    if not states:
        return None
    return _chosen(states[-1] if len(states) > 1 else None, states[0])


def _chosen(averaged: CheckpointFile | None, plain: CheckpointFile | None) -> CheckpointFile | None:
    if averaged is None or plain is None:
        return averaged or plain
    if averaged.weights.keys() == plain.weights.keys():
        return CheckpointFile(
            averaged.weights, f"{averaged.taken} (averaged; {plain.taken} is there too)"
        )
    return CheckpointFile(
        plain.weights, f"{plain.taken} ({averaged.taken} has other tensors and is left)"
    )


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off, as often as it is there, a wrapper's prefix that every name has."""
    found = dict(weights)
    while True:
        prefix = next((p for p in _PREFIXES if found and all(k.startswith(p) for k in found)), None)
        if prefix is None:
            return found
        found = {key.removeprefix(prefix): value for key, value in found.items()}


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = [str(key) for key in content]
        more = len(keys) - _KEYS_TOLD
        told = ", ".join(keys[:_KEYS_TOLD]) + (f" and {more} more" if more > 0 else "")
        return f"a dict of {told}" if keys else "an empty dict"
    if isinstance(content, list | tuple):
        kinds = ", ".join(type(entry).__name__ for entry in content[:_KEYS_TOLD])
        return f"a list of {len(content)}: {kinds}" if content else "an empty list"
    return f"one {type(content).__name__}"
