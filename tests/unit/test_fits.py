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

from casl_bench.core.content_hash import hash_tensors
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.method import FitCost
from casl_bench.runs.fits import FitSpent, FitStore, StoredFit, make_fit

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


def no_fit() -> StoredFit:
    raise AssertionError("fitted again")


def fitted() -> StoredFit:
    method: Any = SlowMethod()
    return make_fit(method, None, "cpu")[1]  # type: ignore[arg-type]


def test_a_fit_is_measured() -> None:
    fit = fitted()
    assert fit.spent.seconds is not None and 0.05 <= fit.spent.seconds < 5
    if Path("/proc/self/clear_refs").exists():
        assert fit.spent.peak_memory_mb is not None and fit.spent.peak_memory_mb > 10
    assert fit.cost == FitCost(parameters=3, unet_calls=7.5)


def test_what_it_took_is_kept_with_it(tmp_path: Path) -> None:
    made = FitStore(tmp_path).get(KEY, fitted)
    again = FitStore(tmp_path)
    read = again.get(KEY, no_fit)
    assert again.made == 0
    assert (read.cost.parameters, read.cost.unet_calls) == (3, 7.5)
    assert read.spent == made.spent and read.spent.seconds is not None
    with safe_open(next(tmp_path.glob("*.safetensors")), "pt") as file:
        cost = json.loads(file.metadata()["cost"])
    assert cost["seconds"] == made.spent.seconds
    assert cost["peak_memory_mb"] == made.spent.peak_memory_mb


def test_what_is_unknown_stays_unknown(tmp_path: Path) -> None:
    fit = StoredFit(STATE, FitCost(3, 7.5))
    FitStore(tmp_path).get(KEY, lambda: fit)
    assert FitStore(tmp_path).get(KEY, no_fit).spent == FitSpent(None, None)


def write(folder: Path, cost: dict[str, Any]) -> FitStore:
    metadata = {"cost": json.dumps(cost), "sha256": hash_tensors(STATE)}
    save_file(STATE, folder / f"{KEY[:16]}.safetensors", metadata=metadata)
    return FitStore(folder)


def test_a_fit_stored_before_times_were_kept_is_read(tmp_path: Path) -> None:
    read = write(tmp_path, {"parameters": 3, "unet_calls": 7.5}).get(KEY, no_fit)
    assert read.cost == FitCost(3, 7.5)
    assert read.spent == FitSpent(None, None)


def test_a_cost_of_other_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidBenchmarkError, match="cannot be used"):
        write(tmp_path, {"parameters": 3, "calls": 7.5}).get(KEY, no_fit)
