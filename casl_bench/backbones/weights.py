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
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError

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


class UnfitWeightsError(InvalidBenchmarkError):
    """Weights and network do not fit each other.

    Attributes:
        faults: each tensor that is missing, unexpected, of another shape or not finite; the
            message tells the first of them.
    """

    def __init__(
        self,
        faults: Sequence[str],
        *,
        where: str,
        mend: str = "fetch or train the weights again",
        told: int = FAULTS_TOLD,
    ) -> None:
        self.faults = tuple(faults)
        more = len(faults) - told
        text = ", ".join(faults[:told]) + (f" and {more} more" if more > 0 else "")
        super().__init__(f"weights do not fit: {text}", where=where, mend=mend)


@dataclass(frozen=True)
class Source:
    """Where a network's tensor comes from.

    Attributes:
        key: its name in the file.
        part: what is taken of the tensor under that name.
    """

    key: str
    part: Callable[[Tensor], Tensor] = lambda tensor: tensor


def fitted_state(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    where: str,
    source_of: Callable[[str], Source] = Source,
) -> dict[str, Tensor]:
    """A state dict for a network, from weights that may be named and packed otherwise.

    Args:
        own: the network's state dict: names, shapes and precision that are asked for.
        weights: what the file holds.
        where: the file, for the message.
        source_of: where the network's tensor of this name comes from; default: the same name.

    Returns:
        Every name of `own`, in its precision.

    Raises:
        UnfitWeightsError: naming, in the file's names, what is missing, unexpected, of another
            shape or not finite.
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


def load_torch_file(path: Path) -> Any:
    """Whatever torch saved in a file, read without running any code in it.

    Raises:
        InvalidBenchmarkError: if the file is absent, damaged or unsafe.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of a pickle protocol that is not its own; what it then reads is sound.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        text = str(error)
        code = _CODE.search(text)
        if code is not None:
            raise InvalidBenchmarkError(
                f"unreadable weights: the file holds '{code[1]}', which is code and is not run",
                where=str(path),
                mend="save the tensors alone",
            ) from error
        # torch's own advice on a pickle that it cannot read is to run what is in it.
        no_pickle = isinstance(error, pickle.UnpicklingError)
        line = "" if no_pickle else next(iter(text.splitlines()), "")
        raise InvalidBenchmarkError(
            f"unreadable weights: {line or 'not a file of torch, or damaged'}",
            where=str(path),
            mend="fetch the file again",
        ) from error


def read_torch_file(path: Path) -> dict[str, Any]:
    """A dict saved by torch, read without running any code in it.

    Raises:
        InvalidBenchmarkError: if the file is absent, damaged, unsafe or not a dict.
    """
    content = load_torch_file(path)
    if not isinstance(content, dict):
        raise InvalidBenchmarkError("not a dict of weights", where=str(path))
    return content
