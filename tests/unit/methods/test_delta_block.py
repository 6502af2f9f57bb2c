from __future__ import annotations

import pytest
import torch

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.delta_block import Form, build_delta_block, delta_block_from_state


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("form", ["ddpm", "adm"])
def test_starts_at_zero_and_learns(form: Form) -> None:
    block = build_delta_block(form, 48, 20, rng())
    h, temb = torch.randn(3, 48, 4, 4, generator=rng()), torch.randn(3, 20, generator=rng())
    assert torch.equal(block(h, temb), torch.zeros_like(h))
    block(h, temb).sum().backward()
    assert block.last_layer.weight.grad is not None
    assert float(block.last_layer.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("form", ["ddpm", "adm"])
def test_depends_on_generator_alone(form: Form) -> None:
    before = torch.get_rng_state()
    one, same, other = (build_delta_block(form, 16, 8, rng(s)).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("form", ["ddpm", "adm"])
def test_looks_at_one_position_through_its_convolutions(form: Form) -> None:
    # Only the group norms see the rest of the map: a rearranged map gives a rearranged edit.
    block = build_delta_block(form, 16, 8, rng())
    torch.nn.init.normal_(block.last_layer.weight, generator=rng())
    h, temb = torch.randn(1, 16, 4, 4, generator=rng()), torch.randn(1, 8, generator=rng())
    torch.testing.assert_close(block(h.flip(2, 3), temb), block(h, temb).flip(2, 3))


@pytest.mark.parametrize("form", ["ddpm", "adm"])
def test_state_tells_the_form(form: Form) -> None:
    block = build_delta_block(form, 16, 8, rng())
    again = delta_block_from_state(block.state_dict())
    assert type(again) is type(block)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in block.state_dict().items())
    assert not any(p.requires_grad for p in again.parameters())


def test_other_tensors_are_refused() -> None:
    with pytest.raises(InvalidBenchmarkError, match=r"no Asyrp delta-block \(here\)"):
        delta_block_from_state({"weight": torch.zeros(1)}, "here")
    state = build_delta_block("ddpm", 16, 8).state_dict()
    state["conv2.bias"][0] = torch.nan
    with pytest.raises(InvalidBenchmarkError, match=r"conv2\.bias holds NaN"):
        delta_block_from_state(state)
