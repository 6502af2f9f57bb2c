"""A fit is measured where it is made and keeps that with it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from casl_bench.cache.store import Cache, CacheKey
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.method import FitCost
from casl_bench.models.model_files import hash_tensors
from casl_bench.runs.fits import FIT_FILE, FitResources, FitStore, StoredFit, make_fit

KEY = "0123456789abcdef" * 4
STATE = {"direction": torch.ones(3)}


class SlowMethod:
    """Fits in a measurable time, and knows nothing of what it takes."""

    cost = FitCost(parameters=3, unet_calls=7.5)

    def fit(self, task: Any) -> SlowMethod:
        time.sleep(0.05)
        return self

    def state(self) -> dict[str, torch.Tensor]:
        return STATE


def no_fit(workspace: Path) -> StoredFit:
    raise AssertionError("fitted again")


def fitted(workspace: Path = Path()) -> StoredFit:
    method: Any = SlowMethod()
    return make_fit(method, None, "cpu")[1]  # type: ignore[arg-type]


def test_a_fit_is_measured() -> None:
    fit = fitted()
    assert fit.resources.seconds is not None and 0.05 <= fit.resources.seconds < 5
    if Path("/proc/self/clear_refs").exists():
        assert fit.resources.peak_memory_mb is not None and fit.resources.peak_memory_mb > 10
    assert fit.cost == FitCost(parameters=3, unet_calls=7.5)


def store(folder: Path) -> FitStore:
    return FitStore(Cache(folder))


def test_what_it_took_is_kept_with_it(tmp_path: Path) -> None:
    made = store(tmp_path).get(KEY, fitted, {})
    again = store(tmp_path)
    read = again.get(KEY, no_fit, {})
    assert again.made == 0
    assert (read.cost.parameters, read.cost.unet_calls) == (3, 7.5)
    assert read.resources == made.resources and read.resources.seconds is not None
    with safe_open(next(tmp_path.glob("fits/*/*.safetensors")), "pt") as file:
        cost = json.loads(file.metadata()["cost"])
    assert cost["seconds"] == made.resources.seconds
    assert cost["peak_memory_mb"] == made.resources.peak_memory_mb


def test_what_is_unknown_stays_unknown(tmp_path: Path) -> None:
    fit = StoredFit(STATE, FitCost(3, 7.5))
    store(tmp_path).get(KEY, lambda workspace: fit, {})
    assert store(tmp_path).get(KEY, no_fit, {}).resources == FitResources(None, None)


def test_the_workspace_survives_an_interruption_and_goes_with_the_fit(tmp_path: Path) -> None:
    def interrupted(workspace: Path) -> StoredFit:
        (workspace / "half").touch()
        raise KeyboardInterrupt

    def resumed(workspace: Path) -> StoredFit:
        assert (workspace / "half").exists()
        return fitted()

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).get(KEY, interrupted, {})
    store(tmp_path).get(KEY, resumed, {})
    assert not list(tmp_path.rglob("half"))


def test_a_cost_of_other_fields_is_refused(tmp_path: Path) -> None:
    metadata = {"cost": json.dumps({"parameters": 3, "calls": 7.5}), "sha256": hash_tensors(STATE)}
    Cache(tmp_path).get_or_make(
        CacheKey("fits", {"fit": KEY}),
        lambda folder: save_file(STATE, folder / FIT_FILE, metadata=metadata),
    )
    with pytest.raises(InvalidBenchmarkError, match="cannot be used"):
        store(tmp_path).get(KEY, no_fit, {})
