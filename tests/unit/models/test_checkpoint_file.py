"""Published weights files: whatever lies around the state dict, and files that are none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.models.weights import read_checkpoint

MODEL = {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2)}
EMA = {name: tensor + 1 for name, tensor in MODEL.items()}
OTHER = {"conv.weight": torch.ones(2, 3)}
OPTIMISER = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("content", "averaged", "taken"),
    [
        (MODEL, False, ""),
        (prefixed(MODEL, "module."), False, ""),
        (prefixed(MODEL, "_orig_mod.module."), False, ""),
        (prefixed(MODEL, "model."), False, ""),
        ({"state_dict": MODEL}, False, "'state_dict'"),
        ({"model": prefixed(MODEL, "module."), "optimizer": OPTIMISER}, False, "'model'"),
        ({"ema": EMA}, True, "'ema'"),
        ({"ema_state_dict": EMA, "state_dict": MODEL}, True, "'ema_state_dict' (averaged; 'sta"),
        ({"model_ema": EMA, "model": prefixed(MODEL, "module.")}, True, "'model_ema' (averaged"),
        ({"ema": {"decay": 0.99, "shadow": EMA}, "model": MODEL}, True, "'ema' › 'shadow'"),
        ({"model": {"state_dict": MODEL}}, False, "'model' › 'state_dict'"),
        ({"model": MODEL, "ema": OTHER}, False, "'model' ('ema' has other tensors and is left)"),
        ({"model": MODEL, "ema": {"decay": 0.99}}, False, "'model'"),
        ([MODEL, OPTIMISER, 3, 400, EMA], True, "entry 4 of 5 (averaged; entry 0 of 5 is there"),
        ([prefixed(MODEL, "module."), OPTIMISER, 3, 400, EMA], True, "entry 4 of 5"),
        ([MODEL, OPTIMISER, 3, 400], False, "entry 0 of 4"),
        ((MODEL, OPTIMISER, 3, 400, OTHER), False, "entry 0 of 5 (entry 4 of 5 has other"),
    ],
)
def test_the_state_dict_within(tmp_path: Path, content: Any, averaged: bool, taken: str) -> None:
    torch.save(content, tmp_path / "net.pt")
    found = read_checkpoint(tmp_path / "net.pt")
    assert list(found.weights) == list(MODEL)
    assert float(found.weights["conv.bias"][0]) == averaged
    assert found.taken.startswith(taken) and bool(found.taken) == bool(taken)


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pt")
    assert list(read_checkpoint(tmp_path / "net.pt").weights) == ["module.a", "b"]


def test_safetensors(tmp_path: Path) -> None:
    save_file(prefixed(EMA, "module."), tmp_path / "net.safetensors")
    found = read_checkpoint(tmp_path / "net.safetensors")
    assert sorted(found.weights) == sorted(MODEL)
    assert torch.equal(found.weights["conv.bias"], EMA["conv.bias"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"epoch": 3, "optimizer": OPTIMISER}, "the file holds a dict of epoch, optimizer"),
        ({f"k{i}": i for i in range(20)}, "k11 and 8 more"),
        ({}, "an empty dict"),
        ([], "an empty list"),
        ([1, "a"], "a list of 2: int, str"),
        (torch.zeros(3), "one Tensor"),
        ({"model": {"model": {"model": {"model": {"model": MODEL}}}}}, "a dict of model"),
    ],
)
def test_what_holds_no_state_dict_tells_its_top_level(
    tmp_path: Path, content: Any, told: str
) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(InvalidBenchmarkError, match="no state dict is found") as raised:
        read_checkpoint(tmp_path / "net.pt")
    assert told in str(raised.value) and "net.pt" in str(raised.value)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[:40] = bytes(40)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        _truncated,
        _changed,
        lambda p: p.unlink(),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("<html>404</html>"),
        lambda p: (p.unlink(), p.mkdir()),
    ],
    ids=["truncated", "changed", "absent", "empty", "a web page", "a folder"],
)
def test_damaged_files_are_one_clear_line(
    tmp_path: Path, damage: Callable[[Path], object], suffix: str
) -> None:
    path = tmp_path / f"net{suffix}"
    state = {"weight": torch.zeros(500)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    damage(path)
    with pytest.raises(InvalidBenchmarkError, match="unreadable weights") as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_whichever_byte_is_hit_it_is_one_clear_line(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "net.pt"
    torch.save({"model": MODEL, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    draw = torch.Generator().manual_seed(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in torch.randint(len(whole), (4,), generator=draw).tolist():
            content[place] ^= 0x5A
        path.write_bytes(content)
        try:
            read_checkpoint(path)
        except InvalidBenchmarkError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("call", "named"),
    [(Path.touch, "getattr"), (os.system, f"{os.system.__module__}.system"), (print, "print")],
)
def test_pickled_code_is_not_run(tmp_path: Path, call: Any, named: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any]]:
            return call, (tmp_path / "ran" if call is Path.touch else f"touch {tmp_path}/ran",)

    torch.save({"state_dict": MODEL, "hyper_parameters": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(InvalidBenchmarkError, match="unreadable weights") as raised:
        read_checkpoint(tmp_path / "trap.ckpt")
    assert f"holds '{named}', which is code and is not run" in str(raised.value)
    # torch's advice is to run it all the same.
    assert "weights_only" not in str(raised.value)
    assert not (tmp_path / "ran").exists()
