"""Shipped models are read with suspicion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.models.model_files import read_model, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = {"a.w": torch.linspace(0, 1, 12).reshape(3, 4), "b.n": torch.tensor([3])}
    write_model(tmp_path / "m", tensors, {"name": "m", "config": {"k": 1}})
    return tmp_path / "m"


def test_round_trip_rounds_to_half_precision(folder: Path) -> None:
    files = read_model(folder)
    expected = torch.linspace(0, 1, 12).reshape(3, 4).half().float()
    assert torch.equal(files.part("a")["w"], expected)
    assert files.part("a")["w"].dtype == torch.float32
    assert files.tensors["b.n"].dtype == torch.int64
    assert files.card["config"] == {"k": 1}
    assert files.card["sha256"] == files.weights_hash
    assert files.card["bytes"] == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent", "no card", "empty card"])
def test_damage_is_one_clear_line(folder: Path, damage: str) -> None:
    weights, card = folder / "model.safetensors", folder / "card.json"
    data = bytearray(weights.read_bytes())
    match damage:
        case "truncated":
            weights.write_bytes(data[:-1])
        case "flipped":
            data[-1] ^= 1
            weights.write_bytes(data)
        case "absent":
            weights.unlink()
        case "no card":
            card.unlink()
        case "empty card":
            card.write_text("{}")
    with pytest.raises(InvalidBenchmarkError) as caught:
        read_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    write_model(tmp_path, {"w": torch.tensor([1.0, bad])}, {"name": "m"})
    with pytest.raises(InvalidBenchmarkError, match="'w'"):
        read_model(tmp_path)
