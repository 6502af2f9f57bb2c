"""Fitted methods kept in the run folder: a fit is never done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from casl_bench.core.content_hash import hash_json, hash_tensors
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import write_bytes
from casl_bench.core.peak_memory import peak_memory
from casl_bench.methods.method import (
    EditingMethod,
    Editor,
    EditTask,
    FitCost,
    SupportsFitKey,
    SupportsPretrained,
)


@dataclass(frozen=True)
class FitSpent:
    """What a fit took of the machine that made it.

    Attributes:
        seconds: wall time; None of a fit that nobody measured.
        peak_memory_mb: as `peak_memory` has it; None where unknown.
    """

    seconds: float | None = None
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class StoredFit:
    """A fit: its tensors, its cost in counts, and what it took where it was made."""

    state: dict[str, Tensor]
    cost: FitCost
    spent: FitSpent = FitSpent()


def make_fit(method: EditingMethod, task: EditTask, device: str) -> tuple[Editor, StoredFit]:
    """Fit a method and measure it, whatever its own cost says of time."""
    started = time.monotonic()
    with peak_memory(device) as peak:
        editor = method.fit(task)
    spent = FitSpent(time.monotonic() - started, peak.mb)
    return editor, StoredFit(editor.state(), editor.cost, spent)


def given_fit(method: SupportsPretrained, path: Path) -> StoredFit:
    """What somebody else trained: it cost nothing here."""
    state = method.read_pretrained(path)
    return StoredFit(state, FitCost(sum(t.numel() for t in state.values())))


def fit_key(method: EditingMethod, inputs: str) -> str:
    """Hash of everything that determines a fit.

    Args:
        method: its settings enter, or its `fit_key` where it shares its fit.
        inputs: hash of concept, images, backbone, guide, SAE and seed.
    """
    own: JsonValue = [method.info.name, method.info.version, method.config.model_dump(mode="json")]
    if isinstance(method, SupportsFitKey):
        own = method.fit_key()
    return hash_json([own, inputs])


class FitStore:
    """One safetensors file a fit, under its key.

    Args:
        folder: made on the first write.

    Attributes:
        made: number of fits made by this object, not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def workspace(self, key: str) -> Path:
        """A scratch folder of a fit that survives an interruption."""
        path = self.folder / f"{key[:16]}.work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, key: str, make: Callable[[], StoredFit]) -> StoredFit:
        """The stored fit, or the one that `make` gives, which is then stored.

        Raises:
            InvalidBenchmarkError: if the stored file is damaged.
        """
        path = self.folder / f"{key[:16]}.safetensors"
        if path.exists():
            return _read(path)
        fit = make()
        self.made += 1
        cost = {
            "parameters": fit.cost.parameters,
            "unet_calls": fit.cost.unet_calls,
            "seconds": fit.spent.seconds,
            "peak_memory_mb": fit.spent.peak_memory_mb,
        }
        metadata = {"cost": json.dumps(cost), "sha256": hash_tensors(fit.state)}
        tensors = {name: t.detach().cpu().contiguous() for name, t in fit.state.items()}
        write_bytes(path, save(tensors, metadata=metadata))
        return fit


def _read(path: Path) -> StoredFit:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
        if hash_tensors(state) != metadata["sha256"]:
            raise ValueError("its content is not what was written")
        cost = json.loads(metadata["cost"])
        # A fit stored before its time was kept has neither.
        spent = FitSpent(cost.pop("seconds", None), cost.pop("peak_memory_mb", None))
        return StoredFit(state, FitCost(**cost), spent)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"a stored fit cannot be used: {error}",
            where=str(path),
            mend="delete the file to fit again",
        ) from error
