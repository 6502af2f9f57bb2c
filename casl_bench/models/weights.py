"""Weights from a file into a network, under other names where need be, each checked."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import STAND_IN_BYTES, regular, stand_in

FAULTS_TOLD = 4
AGAIN = "fetch or train them again"
# How torch names what it will not run.
_CODE = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")
CANNOT_BUILD = (
    TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError,
)  # fmt: skip
"""What a network's constructor raises for arguments that describe none."""
# What a damaged file makes torch and safetensors raise, whichever byte is hit.
_UNREADABLE = (
    OSError, EOFError, MemoryError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
    SafetensorError, *CANNOT_BUILD,
)  # fmt: skip
# Averaged weights come first: they are what samples are generated with.
_EMA_KEYS = (
    "ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema", "params_ema", "netE",
    "net_ema",
)  # fmt: skip
_MODEL_KEYS = ("state_dict", "model", "model_state_dict", "params", "unet", "net", "weights")
# A level down, an average also hides behind these.
_INNER_KEYS = ("shadow", "module", "average")
# Averages without names, in the order of the network's parameters (diffusers, torch_ema).
_UNNAMED = "shadow_params"
# In one flat dict, what begins the names of the average beside those of the raw weights.
_EMA_PREFIXES = ("ema_model.", "model_ema.", "ema.")
_PREFIXES = ("module.", "_orig_mod.", "model.", "online_model.")
# Numbers that averages keep beside their tensors.
_COUNTERS = ("n_averaged", "initted", "step", "num_updates", "decay")
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
        hint: str,
        told: int,
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
    hint: str = AGAIN,
    told: int = FAULTS_TOLD,
) -> dict[str, Tensor]:
    """A state dict for a network, from weights that may be named and packed otherwise.

    Every name of `own`, the network's state dict (whose numbers don't matter), in its precision.
    `source_of` says where the tensor of this name comes from; default: the same name. Raises
    UnfitWeightsError naming, in the file's names, what is missing, unexpected, of another shape or
    kind, or not finite.
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
            fits = part.shape == wanted.shape
            same_kind = part.is_floating_point() == wanted.is_floating_point()
            value = part.to(wanted.dtype) if fits and same_kind and not part.is_complex() else part
        except (RuntimeError, IndexError, ValueError):
            faults.append(f"{source.key} is {list(tensor.shape)}, which cannot be taken apart")
            continue
        if not fits:
            faults.append(f"{source.key} is {list(part.shape)}, not {list(wanted.shape)}")
        elif not same_kind or part.is_complex():
            kinds = f"{part.dtype}, not {wanted.dtype}".replace("torch.", "")
            faults.append(f"{source.key} is {kinds}")
        elif not bool(torch.isfinite(value).all()):
            faults.append(f"{source.key} holds NaN or infinity")
        else:
            state[name] = own_memory(value) if value is part else value.contiguous()
    faults += [f"unexpected {key}" for key in weights if key not in used]
    faults = list(dict.fromkeys(faults))
    if faults:
        raise UnfitWeightsError(faults, where=where, hint=hint, told=told)
    return state


def own_memory(tensor: Tensor) -> Tensor:
    """A copy in memory that torch has allocated, contiguous.

    safetensors hands out tensors as they lie in a file's bytes, wherever these happen to begin:
    kernels choose their way by the address, and so the last bits of what they compute.
    """
    return tensor.clone(memory_format=torch.contiguous_format)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, each in memory of its own.

    Raises what safetensors does: OSError, SafetensorError and others.
    """
    return {name: own_memory(tensor) for name, tensor in load_file(path).items()}


MOST, MOST_LAYERS = 65_536, 64
"""Of any number in the description of a network, and of its layers: more is no network."""


def check_description(config: Mapping[str, Any], where: str, hint: str = AGAIN) -> None:
    """Refuse numbers of which no network is built: NaN, negative ones, and those past all bounds.

    `config` is as JSON gives it; lists and dicts in it are searched, too. A network of a million
    layers would be built for hours before its weights show that it is none.
    """
    todo: list[tuple[str, Any]] = [*config.items()]
    while todo:
        name, value = todo.pop()
        if isinstance(value, Mapping):
            todo += value.items()
        elif isinstance(value, list | tuple):
            todo += ((name, item) for item in value)
        elif isinstance(value, int | float):
            most = MOST_LAYERS if "layers" in name or name == "blocks" else MOST
            if not 0 <= value <= most:
                raise InvalidBenchmarkError(
                    f"{name} is {value}, not a number from 0 to {most:,}", where=where, hint=hint
                )


def read_content(path: Path, again: str = AGAIN) -> Any:
    """What is in a weights file: tensors of safetensors, or whatever torch saved.

    No code in it is run. `again` is what mends a damaged file. Raises InvalidBenchmarkError, naming
    file, fault and cure, where it is absent, damaged or unsafe.
    """
    try:
        if refusal := _refusal(path, again):
            raise _unreadable(path, *refusal)
        with warnings.catch_warnings():
            # torch warns of a pickle protocol that is not its own; what it then reads is sound.
            warnings.simplefilter("ignore")
            if path.suffix == ".safetensors":
                return read_tensors(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error.strerror or type(error).__name__, again) from error
    except _UNREADABLE as error:
        text = str(error)
        if code := _CODE.search(text):
            what = f"the file holds '{code[1]}', which is code and is not run"
            raise _unreadable(path, what, "save the tensors alone") from error
        # torch's own advice on a pickle that it cannot read is to run what is in it.
        told = isinstance(error, pickle.UnpicklingError) or "weights_only" in text
        line = "" if told else next(iter(text.splitlines()), "")
        what = f"cut short or damaged{': ' if line else ''}{line}"
        raise _unreadable(path, what, again) from error


def _unreadable(path: Path, what: str, hint: str) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(f"unreadable weights: {what}", where=str(path), hint=hint)


def _refusal(path: Path, again: str) -> tuple[str, str] | None:
    """Why a file is not even tried, and the cure."""
    if path.is_dir():
        return "a folder, not a file", "name the file in it"
    with regular(path).open("rb") as file:
        start = file.read(STAND_IN_BYTES)
    if what := stand_in(start):
        return what, again
    # A safetensors file is the length of its header in 8 bytes, then the header in JSON.
    header, is_safe = int.from_bytes(start[:8], "little"), start[8:9] == b"{"
    is_zip = start.startswith(b"PK")
    if path.suffix == ".safetensors" and not is_safe and (is_zip or start.startswith(b"\x80")):
        return "torch saved it, though its name ends in .safetensors", "rename it to end in .pt"
    if is_safe and header <= path.stat().st_size and path.suffix != ".safetensors":
        return "safetensors under another ending", "rename it to end in .safetensors"
    return _zip_refusal(path) if is_zip else None


def _zip_refusal(path: Path) -> tuple[str, str] | None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        return "a TorchScript file is a program, and none is run", "convert it to its state_dict()"
    # torch packs without compression, so that no archive of its holds more than it weighs.
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        return "an archive that unpacks to more than it weighs", "save the tensors with torch.save"
    return None


@dataclass(frozen=True)
class CheckpointFile:
    """The weights of a published file."""

    weights: dict[str, Tensor]  # name → tensor, wrappers' prefixes taken off
    # Which of the file's parts they are and why, for a person; empty where it is bare
    taken: str = ""


def read_checkpoint(path: Path, again: str = AGAIN) -> CheckpointFile:
    """Read and unwrap a weights file: safetensors, or anything that torch saves.

    `again` as in `read_content`. Raises InvalidBenchmarkError if the file is absent, damaged,
    unsafe, holds no state dict (the message names the keys of its top level), or an average that is
    not of its weights.
    """
    content = read_content(path, again)
    found = _found(content)
    if not isinstance(found, CheckpointFile):
        what = f"no state dict is found, the file holds {_described(content)}"
        if found:
            what = f"averaged weights are in the file, and {found}"
        hint = "save the state dict alone, the averaged one where there is one"
        raise InvalidBenchmarkError(what, where=str(path), hint=hint)
    for name, tensor in found.weights.items():
        odd = tensor.is_meta or tensor.is_quantized or tensor.is_nested
        plain = tensor.layout == torch.strided and not odd
        held = tensor.untyped_storage().nbytes() if plain else -1
        if not plain or held < tensor.numel() * tensor.element_size():
            raise InvalidBenchmarkError(
                f"'{name}' is no plain tensor of numbers",
                where=str(path),
                hint="save dense tensors that share no memory",
            )
    return found


Found = CheckpointFile | str | None
"""Weights; or what is wrong with an average, which must not be passed over; or nothing."""


def _found(content: Any, depth: int = 0) -> Found:
    """The state dict in this, that of the average where both are there."""
    if isinstance(content, list | tuple) and not depth:
        # Training files of the DDPM family: [model, optimiser, epoch, step, ema].
        entries = [
            found
            for i, entry in enumerate(content)
            if (found := _named(f"entry {i} of {len(content)}", _found(entry, _MAX_DEPTH)))
        ]
        return _chosen(entries[-1] if len(entries) > 1 else None, entries[0] if entries else None)
    if not isinstance(content, Mapping):
        return None
    if _is_state(content):
        return _from_state(content)
    if depth == _MAX_DEPTH:
        return None
    averaged = _first(content, (*_EMA_KEYS, *(_INNER_KEYS if depth else ())), depth)
    plain = _first(content, _MODEL_KEYS, depth)
    if averaged is None and isinstance(plain, CheckpointFile):
        averaged = _unnamed_average(content, plain.weights)
    if averaged is None and plain is None and not depth and _UNNAMED in content:
        return f"'{_UNNAMED}' does not say which tensors they are: give the file that has the model"
    return _chosen(averaged, plain)


def _first(content: Mapping[Any, Any], keys: tuple[str, ...], depth: int) -> Found:
    found = (_named(f"'{key}'", _found(content.get(key), depth + 1)) for key in keys)
    return next((each for each in found if each is not None), None)


def _named(part: str, found: Found) -> Found:
    if not isinstance(found, CheckpointFile):
        return found
    return CheckpointFile(found.weights, f"{part} › {found.taken}" if found.taken else part)


def _from_state(content: Mapping[str, Tensor]) -> Found:
    """A flat state dict, or the average in it where both are there."""
    state = {k: v for k, v in content.items() if k not in _COUNTERS or v.numel() != 1}
    for prefix in _EMA_PREFIXES:
        average = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if average:
            raw = {k: v for k, v in state.items() if not k.startswith(prefix)}
            plain = CheckpointFile(_without_prefixes(raw), "the rest") if raw else None
            return _chosen(CheckpointFile(_without_prefixes(average), f"'{prefix}*'"), plain)
    return CheckpointFile(_without_prefixes(state)) if state else None


def _unnamed_average(content: Mapping[Any, Any], plain: Mapping[str, Tensor]) -> Found:
    """The average of these weights where it is a list in their order; a word where it is not."""
    for key in _EMA_KEYS:
        inner = content.get(key)
        values = inner.get(_UNNAMED, inner) if isinstance(inner, Mapping) else inner
        held = [*values.values()] if isinstance(values, Mapping) else values
        held = held if isinstance(held, list | tuple) else ()
        tensors = [v for v in held if isinstance(v, Tensor) and not v.is_nested]
        if held is values and [t.shape for t in tensors] == [t.shape for t in plain.values()]:
            return CheckpointFile(dict(zip(plain, tensors, strict=True)), f"'{key}'")
        if any(tensor.numel() > 1 for tensor in tensors):
            return f"'{key}' has other tensors than the network"
    return None


def _chosen(averaged: Found, plain: Found) -> Found:
    if not isinstance(averaged, CheckpointFile) or not isinstance(plain, CheckpointFile):
        return averaged or plain
    if averaged.weights.keys() != plain.weights.keys():
        return f"{averaged.taken} has other tensors than {plain.taken}"
    return CheckpointFile(
        averaged.weights, f"{averaged.taken} (averaged; {plain.taken} is there too)"
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
