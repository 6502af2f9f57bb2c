"""Published weights files: whatever lies around the state dict, and files that are none."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.models.weights import fitted_state, read_checkpoint

MODEL = {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2)}
EMA = {name: tensor + 1 for name, tensor in MODEL.items()}
OTHER = {"conv.weight": torch.ones(2, 3)}
COUNT = torch.tensor(7)
EMA_PYTORCH = {
    "initted": torch.tensor(True), "step": COUNT,
    **{f"online_model.{name}": tensor for name, tensor in MODEL.items()},
    **{f"ema_model.{name}": tensor for name, tensor in EMA.items()},
}  # fmt: skip
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
        ({"model": MODEL, "ema": {"decay": 0.99}}, False, "'model'"),
        ([MODEL, OPTIMISER, 3, 400, EMA], True, "entry 4 of 5 (averaged; entry 0 of 5 is there"),
        ([prefixed(MODEL, "module."), OPTIMISER, 3, 400, EMA], True, "entry 4 of 5"),
        ([MODEL, OPTIMISER, 3, 400], False, "entry 0 of 4"),
        ({"n_averaged": COUNT, **prefixed(EMA, "module.")}, True, ""),
        (
            {"model": MODEL, "ema": {"n_averaged": COUNT, **prefixed(EMA, "module.")}},
            True,
            "'ema' (averaged; 'model' is there too)",
        ),
        (
            {"model": MODEL, "ema": {"decay": 0.9, "shadow_params": [*EMA.values()]}},
            True,
            "'ema' (averaged; 'model' is there too)",
        ),
        ({"model": MODEL, "ema": [*EMA.values()]}, True, "'ema' (averaged; 'model' is there too)"),
        (EMA_PYTORCH, True, "'ema_model.*' (averaged; the rest is there too)"),
        ({"model": MODEL, "ema": EMA_PYTORCH}, True, "'ema' › 'ema_model.*' (averaged; the rest"),
        (prefixed(EMA, "ema_model."), True, "'ema_model.*'"),
        ({"net": MODEL, "netE": EMA}, True, "'netE' (averaged; 'net' is there too)"),
        ({"net": MODEL, "net_ema": EMA, "epoch": 3}, True, "'net_ema' (averaged; 'net' is"),
    ],
)
def test_the_state_dict_within(tmp_path: Path, content: Any, averaged: bool, taken: str) -> None:
    torch.save(content, tmp_path / "net.pt")
    found = read_checkpoint(tmp_path / "net.pt")
    assert list(found.weights) == list(MODEL)
    assert float(found.weights["conv.bias"][0]) == averaged
    assert found.taken.startswith(taken) and bool(found.taken) == bool(taken)


@pytest.mark.parametrize(
    "content",
    [
        {"model": MODEL, "ema": OTHER},
        {"model": MODEL, "ema": {"shadow_params": [torch.ones(2, 3)]}},
        {"model": MODEL, "ema": [torch.ones(3, 2), torch.ones(2)]},
        {"model": MODEL, "ema": {"decay": 0.9, **EMA}},
        (MODEL, OPTIMISER, 3, 400, OTHER),
        {**MODEL, **prefixed(OTHER, "ema_model.")},
        {"net": MODEL, "netE": OTHER},
        {"decay": 0.9, "optimization_step": 3, "shadow_params": [*EMA.values()]},
    ],
    ids=["other names", "too few", "other shapes", "mixed", "in a list", "in one dict", "netE",
         "without the model"],
)  # fmt: skip
def test_an_average_that_is_not_of_the_weights_is_not_passed_over(
    tmp_path: Path, content: Any
) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(InvalidBenchmarkError, match="averaged weights are in the file") as raised:
        read_checkpoint(tmp_path / "net.pt")
    assert "save the state dict alone, the averaged one" in str(raised.value)


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pt")
    assert list(read_checkpoint(tmp_path / "net.pt").weights) == ["module.a", "b"]


def test_safetensors(tmp_path: Path) -> None:
    save_file(prefixed(EMA, "module."), tmp_path / "net.safetensors")
    found = read_checkpoint(tmp_path / "net.safetensors")
    assert sorted(found.weights) == sorted(MODEL)
    assert torch.equal(found.weights["conv.bias"], EMA["conv.bias"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_tensors_are_in_memory_of_their_own_wherever_the_file_has_them(
    tmp_path: Path, suffix: str
) -> None:
    """Kernels choose their way by the address of a tensor: the same weights, other last bits."""
    path = tmp_path / f"net{suffix}"
    odd = {f"{i}": torch.arange(3.0) for i in range(8)}  # 12 bytes each: none begins at 64 but one
    save_file(odd, path) if suffix == ".safetensors" else torch.save(
        {name: torch.arange(9.0)[i % 3 :][:3] for i, name in enumerate(odd)}, path
    )
    if suffix == ".safetensors":  # the test could fail
        assert any(t.data_ptr() % 64 for t in load_file(path).values())
    weights = read_checkpoint(path).weights
    own = {name: torch.zeros(3) for name in weights}
    for name, tensor in fitted_state(own, weights, "here").items():
        assert tensor.data_ptr() % 64 == 0 and tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == 12, name
    if suffix == ".safetensors":
        assert all(t.data_ptr() % 64 == 0 for t in weights.values())


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
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        lambda p: (p.unlink(), p.mkdir()),
        lambda p: (p.unlink(), os.mkfifo(p)),
        lambda p: (p.unlink(), p.symlink_to(p)),
    ],
    ids=["truncated", "changed", "absent", "empty", "a web page", "a pointer", "a folder", "a pipe",
         "a loop"],
)  # fmt: skip
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


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**12),
        torch.zeros(4, device="meta"),
        torch.zeros(2, 2).to_sparse(),
    ],
    ids=["expanded", "without numbers", "sparse"],
)
def test_what_is_no_plain_tensor_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"weight": tensor}, tmp_path / "net.pt")
    with pytest.raises(InvalidBenchmarkError, match="'weight' is no plain tensor"):
        read_checkpoint(tmp_path / "net.pt")


def test_an_archive_that_unpacks_to_more_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(10**7))
    with pytest.raises(InvalidBenchmarkError, match="unpacks to more than it weighs"):
        read_checkpoint(path)


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
