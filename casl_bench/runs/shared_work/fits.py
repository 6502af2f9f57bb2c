"""Fitted methods kept in the cache: a fit is never done twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from casl_bench.cache.entry import CacheKey
from casl_bench.cache.store import Cache
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


FIT_FILE = "fit.safetensors"


class FitStore:
    """One safetensors file a fit, an entry of the cache.

    Args:
        cache: where they are kept.

    Attributes:
        made: number of fits made by this object, not read.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.made = 0

    def get(
        self, key: str, make: Callable[[Path], StoredFit], about: Mapping[str, JsonValue]
    ) -> StoredFit:
        """The stored fit, or the one that `make` gives, which is then stored.

        Args:
            key: `fit_key` of the fit.
            make: is given a scratch folder that survives an interruption.
            about: what else tells it from other fits, the inputs of the key in clear among them.

        Raises:
            CacheError: where the cache cannot be written.
            InvalidBenchmarkError: if the stored file is none of a fit.
        """
        made: list[StoredFit] = []

        def write(folder: Path) -> None:
            workspace = folder / "work"
            workspace.mkdir(exist_ok=True)
            fit = make(workspace)
            _write(folder / FIT_FILE, fit)
            shutil.rmtree(workspace)
            self.made += 1
            made.append(fit)

        entry = self.cache.get_or_make(CacheKey("fits", {**about, "fit": key}), write)
        return made[0] if made else _read(entry.folder / FIT_FILE)

    def find(self, key: str) -> StoredFit | None:
        """A fit of this key, by whatever code it was made; None where there is none.

        Raises:
            InvalidBenchmarkError: if it is damaged.
        """
        for sidecar in self.cache.entries("fits"):
            if sidecar.inputs.get("fit") == key and (entry := self.cache.find(sidecar.key)):
                return _read(entry.folder / FIT_FILE)
        return None


def _write(path: Path, fit: StoredFit) -> None:
    cost = {
        "parameters": fit.cost.parameters,
        "unet_calls": fit.cost.unet_calls,
        "seconds": fit.spent.seconds,
        "peak_memory_mb": fit.spent.peak_memory_mb,
    }
    metadata = {"cost": json.dumps(cost), "sha256": hash_tensors(fit.state)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in fit.state.items()}
    write_bytes(path, save(tensors, metadata=metadata))


def _read(path: Path) -> StoredFit:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
        if hash_tensors(state) != metadata["sha256"]:
            raise ValueError("its content is not what was written")
        cost = json.loads(metadata["cost"])
        spent = FitSpent(cost.pop("seconds", None), cost.pop("peak_memory_mb", None))
        return StoredFit(state, FitCost(**cost), spent)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"a stored fit cannot be used: {error}",
            where=str(path),
            mend="delete its folder to fit again",
        ) from error
