"""The SAE on maps: the formula with its normalisation, batch invariance, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig
from casl_bench.sae.sae import HSpaceSae, SaeProvider

GENERATOR = torch.Generator().manual_seed(1)
H = torch.randn(5, 16, 4, 4, generator=GENERATOR) * 2 + 1


def make(seed: int = 0) -> HSpaceSae:
    generator = torch.Generator().manual_seed(seed)
    sae = TopK(SaeConfig(d_in=16, d_sae=64, k=6), generator)
    with torch.no_grad():
        sae.b_dec.normal_(generator=generator)
        sae.b_enc.normal_(generator=generator)
    mean = torch.randn(2, 16, generator=generator)
    return HSpaceSae(sae, (0, 300), mean, torch.tensor([2.0, 0.5]))


@pytest.mark.parametrize(("t", "step"), [(0, 0), (300, 1)])
def test_encode_and_decode_are_the_formula_at_every_position(t: int, step: int) -> None:
    sae = make()
    z = sae.encode(H, t)
    h_hat = sae.decode(z, t)
    assert z.shape == (5, 64, 4, 4) and h_hat.shape == H.shape
    mean, scale = sae.mean[step], sae.scale[step]
    for n, y, x in ((0, 0, 0), (4, 1, 3)):
        code = sae.sae.encode(((H[n, :, y, x] - mean) / scale)[None])[0]
        assert torch.allclose(z[n, :, y, x], code, atol=1e-5)
        expected = (code @ sae.sae.W_dec + sae.sae.b_dec) * scale + mean
        assert torch.allclose(h_hat[n, :, y, x], expected, atol=1e-5)
    assert torch.equal(sae.reconstruct(H, t), h_hat)


def test_a_shift_of_the_code_is_linear_and_has_no_bias() -> None:
    sae = make()
    z = sae.encode(H, 300)
    dz = torch.randn(z.shape, generator=GENERATOR)
    shifted = sae.decode(z + dz, 300) - sae.decode(z, 300)
    assert torch.allclose(sae.decode_delta(dz, 300), shifted, atol=1e-4)
    assert torch.equal(sae.decode_delta(torch.zeros_like(z), 300), torch.zeros_like(H))


def test_an_images_code_does_not_depend_on_its_batch() -> None:
    sae = make()
    together = sae.encode(H, 0)
    for n in range(5):
        assert torch.equal(sae.encode(H[n : n + 1], 0)[0], together[n])
    strided = H.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(sae.encode(strided, 0), together)
    assert torch.equal(sae.decode(together[2:3], 0)[0], sae.decode(together, 0)[2])


def test_normalised_vectors_are_cut_image_by_image() -> None:
    sae = make()
    rows = sae.normalise(H, 300)
    assert rows.shape == (5 * 16, 16)
    assert torch.allclose(rows[16 * 1 + 4 * 2 + 3], (H[1, :, 2, 3] - sae.mean[1]) / 0.5)


def test_an_empty_batch_is_no_error() -> None:
    assert make().encode(H[:0], 0).shape == (0, 64, 4, 4)


def test_gradients_reach_h_but_no_weight() -> None:
    sae, h = make(), H.clone().requires_grad_()
    sae.reconstruct(h, 0).sum().backward()
    assert h.grad is not None and bool((h.grad != 0).any())
    assert all(p.grad is None and not p.requires_grad for p in sae.sae.parameters())


@pytest.mark.parametrize(
    "call",
    [
        lambda sae: sae.encode(H, 1),
        lambda sae: sae.encode(H[:, :3], 0),
        lambda sae: sae.encode(H[0], 0),
        lambda sae: sae.decode(H, 0),
        lambda sae: sae.decode_delta(H, 0),
    ],
)
def test_wrong_timesteps_and_shapes_are_refused(call: Callable[[HSpaceSae], object]) -> None:
    with pytest.raises(InputError):
        call(make())


def test_it_comes_back_from_its_files(tmp_path: Path) -> None:
    sae = make()
    sae.save(tmp_path)
    again = HSpaceSae.load(tmp_path)
    assert again.content_hash == sae.content_hash and again.timesteps == (0, 300)
    assert torch.equal(again.encode(H, 300), sae.encode(H, 300))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cfg.json", "sae.safetensors"]


def test_the_hash_follows_weights_statistics_and_timesteps() -> None:
    sae = make()
    assert make().content_hash == sae.content_hash
    others = [
        make(1),
        HSpaceSae(sae.sae, (0, 301), sae.mean, sae.scale),
        HSpaceSae(sae.sae, (0, 300), sae.mean + 1, sae.scale),
        HSpaceSae(sae.sae, (0, 300), sae.mean, sae.scale * 2),
    ]
    assert len({o.content_hash for o in [sae, *others]}) == 5


@pytest.mark.parametrize(
    "damage",
    [
        "absent",
        "truncated",
        "empty",
        "NaN",
        "flipped",
        "shape",
        "tensor lost",
        "cfg truncated",
        "cfg unknown key",
        "cfg other k",
        "cfg unknown dictionary",
    ],
)
def test_damaged_files_are_one_clear_error(tmp_path: Path, damage: str) -> None:
    make().save(tmp_path)
    weights, cfg = tmp_path / "sae.safetensors", tmp_path / "cfg.json"
    tensors = load_file(weights)
    if damage == "absent":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "NaN":
        tensors["W_enc"][0, 0] = float("nan")
        save_file(tensors, weights)
    elif damage == "flipped":
        tensors["W_enc"][0, 0] += 1e-6
        save_file(tensors, weights)
    elif damage == "shape":
        tensors["b_enc"] = tensors["b_enc"][:-1].clone()
        save_file(tensors, weights)
    elif damage == "tensor lost":
        del tensors["mean"]
        save_file(tensors, weights)
    elif damage == "cfg truncated":
        cfg.write_text(cfg.read_text()[:-10])
    else:
        stored = json.loads(cfg.read_text())
        if damage == "cfg unknown dictionary":
            stored["dictionary"] = "top_kk"
        else:
            stored["sae"] |= {"surprise": 1} if damage == "cfg unknown key" else {"k": 7}
        cfg.write_text(json.dumps(stored))
    with pytest.raises(InvalidBenchmarkError, match="delete its folder to train again") as caught:
        HSpaceSae.load(tmp_path)
    assert caught.value.exit_code == 5
    named = {weights, cfg} if damage == "cfg other k" else {cfg if "cfg" in damage else weights}
    assert any(str(path) in str(caught.value) for path in named)
    assert "\n" not in str(caught.value)


def test_statistics_that_cannot_be_are_refused() -> None:
    sae = make()
    for mean, scale in (
        (sae.mean[:1], sae.scale),
        (sae.mean, sae.scale * 0),
        (sae.mean * float("inf"), sae.scale),
    ):
        with pytest.raises(InvalidBenchmarkError):
            HSpaceSae(sae.sae, (0, 300), mean, scale)


def test_a_provider_is_anything_with_get() -> None:
    class Fixed:
        def get(self) -> HSpaceSae:
            return make()

    assert isinstance(Fixed(), SaeProvider)
