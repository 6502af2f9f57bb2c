"""The two formulas, against three lines of torch."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from casl_bench.core.errors import InputError
from casl_bench.sae.dictionaries.relu import Relu, ReluConfig
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig
from casl_bench.sae.training import SparseAutoencoder


def make(activation: str = "topk", k: int = 3) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    sae: SparseAutoencoder = TopK(SaeConfig(d_in=6, d_sae=20, k=k), generator)
    if activation == "relu":
        sae = Relu(ReluConfig(d_in=6, d_sae=20, k=k), generator)
    with torch.no_grad():
        sae.b_enc.normal_(generator=generator)
        sae.b_dec.normal_(generator=generator)
        sae.W_enc.normal_(generator=generator)
    return sae


H = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))


def test_relu_is_the_formula() -> None:
    sae = make("relu")
    z, h_hat, pre = sae(H)
    assert torch.allclose(pre, (H - sae.b_dec) @ sae.W_enc + sae.b_enc, atol=1e-5)
    assert torch.allclose(z, pre.clamp_min(0))
    assert torch.allclose(h_hat, z @ sae.W_dec + sae.b_dec, atol=1e-5)


def test_topk_keeps_the_k_largest_positive_ones() -> None:
    sae = make(k=3)
    pre, z = sae.pre_activations(H), sae.encode(H)
    threshold = pre.sort(1, descending=True).values[:, 2:3]
    expected = torch.where(pre >= threshold, pre, 0).clamp_min(0)
    assert torch.equal(z, expected)
    assert int((z > 0).sum(1).max()) == 3 and bool((z >= 0).all())


def test_fewer_than_k_are_active_where_fewer_are_positive() -> None:
    sae = make(k=3)
    with torch.no_grad():
        sae.b_enc.fill_(-100)
        sae.b_enc[5] = 100
    assert (sae.encode(H) > 0).sum(1).tolist() == [1] * 50


def test_decoder_starts_with_unit_rows_and_the_encoder_as_its_transpose() -> None:
    sae = TopK(SaeConfig(d_in=6, d_sae=20, k=3), torch.Generator().manual_seed(0))
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(20))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert sae.W_enc.data_ptr() != sae.W_dec.data_ptr()


def test_parallel_gradient_is_removed_and_only_it() -> None:
    sae = make()
    sae(H)[1].square().sum().backward()
    gradient = sae.W_dec.grad
    assert gradient is not None
    before = gradient.clone()
    sae.remove_parallel_gradient()
    scale = before.norm(dim=1).max()
    assert bool(((gradient * sae.W_dec).sum(1).abs() < 1e-5 * scale).all())
    along = (before * sae.W_dec).sum(1, keepdim=True) * sae.W_dec
    assert torch.allclose(before - along, gradient, atol=1e-5 * float(scale))


def test_normalising_survives_a_row_of_zeros() -> None:
    sae = make()
    with torch.no_grad():
        sae.W_dec[0] = 0
        sae.W_dec[1] *= 7
    sae.normalise_decoder()
    norms = sae.W_dec.norm(dim=1)
    assert norms[0] == 0 and torch.allclose(norms[1:], torch.ones(19))


@pytest.mark.parametrize("shape", [(6,), (2, 5), (1, 2, 6)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected vectors"):
        make().encode(torch.zeros(shape))


@pytest.mark.parametrize(
    "settings",
    [
        {"d_in": 0},
        {"d_in": 4, "d_sae": 8, "k": 9},
        {"d_in": 4, "k": 0},
        {"d_in": 4, "width": 8},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SaeConfig.model_validate(settings)
