"""Delta-blocks as Asyrp's authors publish them load and run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.delta_block import (
    AdmDeltaBlock,
    DdpmDeltaBlock,
    delta_block_from_state,
    load_delta_block,
)

FOLDER = "asyrp_checkpoints"
FILES = {
    "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth": DdpmDeltaBlock,
    "church_gothic_LC_church_outdoor_t999_ninv40_ngen40_0.pth": DdpmDeltaBlock,
    "dog_happy_LC_dog_t999_ninv40_ngen40_0.pth": AdmDeltaBlock,
}


@pytest.mark.parametrize("name", FILES)
def test_loads_and_runs(golden_path: Callable[[str], Path], name: str) -> None:
    block = load_delta_block(golden_path(f"{FOLDER}/{name}"))
    assert type(block) is FILES[name]
    assert block.last_layer.weight.shape == (512, 512, 1, 1)
    assert not any(p.requires_grad for p in block.parameters())
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(2, 512, 8, 8, generator=generator)
    temb = torch.randn(2, 512, generator=generator)
    delta_h = block(h, temb)
    assert delta_h.shape == h.shape
    assert bool(torch.isfinite(delta_h).all())
    # A trained block does something, and heeds both of its inputs.
    assert float(delta_h.std()) > 1e-3
    assert not torch.allclose(block(h, -temb), delta_h, rtol=1e-3)
    assert not torch.allclose(block(-h, temb), delta_h, rtol=1e-3)


@pytest.mark.parametrize("name", FILES)
def test_unfit_files_are_refused(
    golden_path: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    path = golden_path(f"{FOLDER}/{name}")
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InvalidBenchmarkError, match="unreadable weights"):
        load_delta_block(truncated)
    with pytest.raises(InvalidBenchmarkError, match="unreadable weights"):
        load_delta_block(tmp_path / "absent.pth")
    torch.save({"1": {}}, tmp_path / "other.pth")
    with pytest.raises(InvalidBenchmarkError, match="no delta-block 0"):
        load_delta_block(tmp_path / "other.pth")


@pytest.mark.parametrize("name", FILES)
def test_misshapen_block_is_refused(golden_path: Callable[[str], Path], name: str) -> None:
    state = dict(load_delta_block(golden_path(f"{FOLDER}/{name}")).state_dict())
    first_norm = next(k for k in state if k in ("norm2.weight", "in_layers.0.weight"))
    with pytest.raises(InvalidBenchmarkError, match=r"is \[3\], not \[512\]"):
        delta_block_from_state(state | {first_norm: torch.ones(3)})
    del state[first_norm]
    with pytest.raises(InvalidBenchmarkError, match=f"missing {first_norm}"):
        delta_block_from_state(state)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"0": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InvalidBenchmarkError, match="unreadable weights"):
        load_delta_block(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()
