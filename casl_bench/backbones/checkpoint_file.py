"""A weights file as somebody published it, unwrapped to one flat state dict.

Files of the same network differ in what lies around it: a bare state dict, a dict or list with the
optimiser beside it, an exponential moving average, the prefix of a wrapper. Nothing in a file is
executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from casl_bench.backbones.weights import load_torch_file
from casl_bench.core.errors import InvalidBenchmarkError

# Averaged weights come first: they are what samples are drawn with.
_EMA_KEYS = ("ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema", "params_ema")
_MODEL_KEYS = ("state_dict", "model", "model_state_dict", "params", "unet", "net", "weights")
# A level down, an average also hides behind these.
_INNER_KEYS = ("shadow", "module", "average")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_DEPTH = 3
_KEYS_TOLD = 12


@dataclass(frozen=True)
class CheckpointFile:
    """The weights of a published file.

    Attributes:
        weights: name → tensor, wrappers' prefixes taken off.
        taken: which of the file's parts they are and why, for a person; empty where it is bare.
    """

    weights: dict[str, Tensor]
    taken: str = ""


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read and unwrap a published weights file.

    Args:
        path: safetensors by its suffix, otherwise anything that torch saves.

    Raises:
        InvalidBenchmarkError: if the file is absent, damaged, unsafe, or holds no state dict; the
            keys of its top level are told.
    """
    if path.suffix == ".safetensors":
        return CheckpointFile(_without_prefixes(_read_safetensors(path)))
    return unwrap(load_torch_file(path), str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"unreadable weights: {error}", where=str(path), mend="fetch the file again"
        ) from error


def unwrap(content: Any, where: str) -> CheckpointFile:
    """The state dict within what a file holds; see `read_checkpoint`."""
    if isinstance(content, list | tuple):
        found = _from_list(content)
    elif isinstance(content, Mapping):
        found = _from_mapping(content, 0)
    else:
        found = None
    if found is None:
        raise InvalidBenchmarkError(
            f"no state dict is found, the file holds {_described(content)}",
            where=where,
            mend="save the network's state dict alone",
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
