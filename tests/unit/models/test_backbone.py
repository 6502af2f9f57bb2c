from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.models.backbone import Backbone
from casl_bench.models.unet import build_unet, save_folder

Make = Callable[..., Backbone]


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", ["ddpm", "adm"])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_halves_make_the_whole_bit_for_bit(
    make_backbone: Make, family: str, patch_size: int
) -> None:
    backbone = make_backbone(family, patch_size=patch_size)
    x_t = images(4)
    with torch.no_grad():
        whole = backbone.unet(functional.pixel_unshuffle(x_t, patch_size), 300).sample
    halves = backbone.decode(backbone.encode(x_t, 300))
    assert torch.equal(halves, functional.pixel_shuffle(whole, patch_size))


# The compiler looks at every tensor that it meets.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("family", ["ddpm", "adm"])
def test_either_half_is_compiled_as_one_graph(make_backbone: Make, family: str) -> None:
    """The backend of graphs that are run as they were captured: a half in pieces is an error."""
    plain, compiled = make_backbone(family), make_backbone(family).compile(backend="eager")
    assert compiled.weights_hash != plain.weights_hash
    for t in (300, 20):
        assert torch.equal(compiled.eps(images(3), t), plain.eps(images(3), t))
    state = plain.encode(images(2), 300)
    delta_h = torch.ones_like(state.h).requires_grad_(True)
    compiled.encode(images(2), 300)
    compiled.decode(state, delta_h).sum().backward()
    assert delta_h.grad is not None and delta_h.grad.abs().sum() > 0
    twin = compiled.twin()  # whose weights change: a graph would hold those that it was made with
    assert twin._encoder_half is plain._encoder_half
    assert torch.equal(twin.eps(images(3), 300), plain.eps(images(3), 300))


@pytest.mark.parametrize("family", ["ddpm", "adm"])
def test_h_is_the_output_of_the_mid_block(make_backbone: Make, family: str) -> None:
    backbone = make_backbone(family)
    seen = []
    assert backbone.unet.mid_block is not None
    hook = backbone.unet.mid_block.register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        backbone.unet(images(4), 300)
    hook.remove()
    state = backbone.encode(images(4), 300)
    assert torch.equal(state.h, seen[0])
    assert state.h.shape[1:] == backbone.h_shape
    assert state.temb.shape == (4, backbone.temb_dim)
    assert torch.equal(state.temb, backbone.time_embedding(300, 4))


def test_delta_h_is_added_to_h(make_backbone: Make) -> None:
    backbone = make_backbone()
    state = backbone.encode(images(4), 300)
    delta_h = torch.randn(4, *backbone.h_shape, generator=torch.Generator().manual_seed(2))
    shifted = replace(state, h=state.h + delta_h)
    edited = backbone.decode(state, delta_h)
    assert torch.equal(edited, backbone.decode(shifted))
    assert not torch.allclose(edited, backbone.decode(state, -delta_h), atol=1e-3)
    assert torch.equal(state.h, backbone.encode(images(4), 300).h)


@pytest.mark.parametrize("family", ["ddpm", "adm"])
def test_an_image_does_not_feel_its_batch(make_backbone: Make, family: str) -> None:
    backbone = make_backbone(family)
    x_t = images(9)
    delta_h = torch.randn(9, *backbone.h_shape, generator=torch.Generator().manual_seed(2))
    state = backbone.encode(x_t, 300)
    eps, edited = backbone.decode(state), backbone.decode(state, delta_h)
    assert torch.equal(eps, backbone.eps(x_t, 300))
    for i in (0, 4, 8):
        alone = backbone.encode(x_t[i : i + 1], 300)
        assert torch.equal(alone.h[0], state.h[i])
        assert torch.equal(backbone.decode(alone)[0], eps[i])
        assert torch.equal(backbone.decode(alone, delta_h[i : i + 1])[0], edited[i])
    order = torch.tensor([7, 3, 3, 0, 8])
    taken = backbone.decode(state.take(order), delta_h[order])
    assert torch.equal(taken, edited[order])


def test_memory_layout_does_not_change_bits(make_backbone: Make) -> None:
    backbone = make_backbone()
    x_t = images(4)
    assert torch.equal(
        backbone.eps(x_t.contiguous(memory_format=torch.channels_last), 300),
        backbone.eps(x_t, 300),
    )


def test_predictions_of_v_and_x_0_become_eps(make_backbone: Make) -> None:
    x_t, t = images(3), 600
    backbones = {p: make_backbone(prediction=p) for p in ("eps", "v", "x0")}
    ab = backbones["eps"].schedule.alpha_bar(t)
    output = backbones["eps"].eps(x_t, t)
    v_eps = backbones["v"].eps(x_t, t)
    torch.testing.assert_close(v_eps, ab**0.5 * output + (1 - ab) ** 0.5 * x_t)
    x0_eps = backbones["x0"].eps(x_t, t)
    torch.testing.assert_close(ab**0.5 * output + (1 - ab) ** 0.5 * x0_eps, x_t)


def test_v_prediction_recovers_the_noise(make_backbone: Make) -> None:
    backbone = make_backbone(prediction="v")
    x_0, noise, ab = images(2), images(2, seed=5), backbone.schedule.alpha_bar(400)
    x_t = ab**0.5 * x_0 + (1 - ab) ** 0.5 * noise
    v = ab**0.5 * noise - (1 - ab) ** 0.5 * x_0
    torch.testing.assert_close(backbone._eps_from_output(v, x_t, 400), noise)


def test_learned_variance_is_dropped(make_backbone: Make) -> None:
    backbone = make_backbone("adm", learned_sigma=True)
    with torch.no_grad():
        output = backbone.unet(images(4), 300).sample
    assert output.shape[1] == 6
    assert torch.equal(backbone.eps(images(4), 300), output[:, :3])


def test_calls_are_counted_in_images(make_backbone: Make) -> None:
    backbone = make_backbone()
    with backbone.count_calls() as calls:
        state = backbone.encode(images(5), 300)
        backbone.decode(state)
        backbone.decode(state)
    assert (calls.encoder, calls.decoder, calls.unet_calls) == (5, 10, 7.5)
    with backbone.count_calls() as calls:
        backbone.eps(images(3), 300)
    assert calls.unet_calls == 3
    assert backbone.calls.unet_calls == 10.5


def test_gradients_reach_delta_h_and_nothing_else(make_backbone: Make) -> None:
    backbone = make_backbone()
    state = backbone.encode(images(3), 300)
    assert not state.h.requires_grad
    delta_h = torch.zeros(3, *backbone.h_shape, requires_grad=True)
    eps = backbone.decode(state, delta_h)
    torch.testing.assert_close(eps.detach(), backbone.decode(state))
    eps.pow(2).sum().backward()
    assert delta_h.grad is not None
    assert all(p.grad is None for p in backbone.unet.parameters())
    step = 1e-2 * delta_h.grad / delta_h.grad.norm()
    rise = (backbone.decode(state, step) ** 2).sum() - (backbone.decode(state, -step) ** 2).sum()
    assert float(rise) == pytest.approx(float(2e-2 * delta_h.grad.norm()), rel=0.02)


def test_no_graph_is_kept_without_need(make_backbone: Make) -> None:
    backbone = make_backbone()
    state = backbone.encode(images(2).requires_grad_(), 300)
    assert backbone.decode(state).grad_fn is None
    with torch.no_grad():
        delta_h = torch.zeros(2, *backbone.h_shape, requires_grad=True)
        assert backbone.decode(state, delta_h).grad_fn is None


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 16, 16), (3, 16, 16), (0, 3, 16, 16)])
def test_images_of_the_wrong_size_are_refused(make_backbone: Make, shape: Any) -> None:
    with pytest.raises(InputError, match=r"takes \[n, 3, 16, 16\]"):
        make_backbone().encode(torch.zeros(shape), 0)


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_out_of_range_are_refused(make_backbone: Make, t: int) -> None:
    with pytest.raises(InputError, match="outside"):
        make_backbone().encode(images(1), t)


def test_folder_round_trip(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone("adm", learned_sigma=True)
    save_folder(tmp_path / "full", backbone.config, backbone.unet, torch.float32)
    same = Backbone.from_folder(tmp_path / "full")
    assert same.weights_hash == backbone.weights_hash
    assert same.config == backbone.config
    assert torch.equal(same.eps(images(2), 300), backbone.eps(images(2), 300))
    save_folder(tmp_path / "half", backbone.config, backbone.unet)
    half = Backbone.from_folder(tmp_path / "half")
    assert half.unet.dtype == torch.float32
    assert half.weights_hash != backbone.weights_hash
    torch.testing.assert_close(
        half.eps(images(2), 300), backbone.eps(images(2), 300), rtol=0, atol=1e-2
    )


def test_loading_draws_no_random_numbers(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone()
    save_folder(tmp_path, backbone.config, backbone.unet)
    before = torch.get_rng_state()
    Backbone.from_folder(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_hash_tells_weights_and_meaning(make_backbone: Make) -> None:
    hashes = {
        make_backbone().weights_hash,
        make_backbone(seed=1).weights_hash,
        make_backbone(prediction="v").weights_hash,
        make_backbone(schedule={"beta_end": 0.03}).weights_hash,
    }
    assert len(hashes) == 4
    assert make_backbone().weights_hash in hashes


def _poison(path: Path) -> None:
    weights = load_file(path / "unet.safetensors")
    weights["conv_out.bias"][0] = torch.nan
    save_file(weights, path / "unet.safetensors")


def _drop(path: Path) -> None:
    weights = load_file(path / "unet.safetensors")
    del weights["conv_out.bias"]
    save_file(weights, path / "unet.safetensors")


def _misshape(path: Path) -> None:
    weights = load_file(path / "unet.safetensors")
    weights["conv_out.bias"] = torch.zeros(2)
    save_file(weights, path / "unet.safetensors")


def _truncate(path: Path) -> None:
    file = path / "unet.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_poison, "conv_out.bias holds NaN or infinity"),
        (_drop, "missing conv_out.bias"),
        (_misshape, "conv_out.bias is [2], not [3]"),
        (_truncate, "unreadable weights"),
        (lambda p: (p / "unet.safetensors").unlink(), "unreadable weights"),
        (lambda p: (p / "config.json").unlink(), "unreadable backbone config"),
        (lambda p: (p / "config.json").write_text("{"), "invalid config: Expecting"),
        (_config(prediction="noise"), "invalid backbone config: prediction"),
        (_config(colour=1), "invalid backbone config: colour"),
        (_config(unet={"down_block_types": ["None"]}), "no U-Net can be built"),
    ],
    ids=[
        "nan", "missing tensor", "misshapen", "truncated", "no weights", "no config", "bad json",
        "bad value", "unknown field", "bad unet",
    ],
)  # fmt: skip
def test_damaged_folders_are_one_clear_line(
    make_backbone: Make, tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    backbone = make_backbone()
    save_folder(tmp_path, backbone.config, backbone.unet)
    damage(tmp_path)
    with pytest.raises(InvalidBenchmarkError) as raised:
        Backbone.from_folder(tmp_path)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 5


@pytest.mark.parametrize(
    "change",
    [
        {"mid_block_type": None},
        {"num_class_embeds": 4},
        {"time_embedding_type": "fourier"},
        {"center_input_sample": True},
        {"down_block_types": ["SkipDownBlock2D"] * 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_networks_that_the_cut_does_not_cover_are_refused(
    make_backbone: Make, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidBenchmarkError, match=r"not supported|no U-Net can be built"):
        build_unet(make_backbone().config.unet | change)


def test_a_twin_has_weights_of_its_own_and_shares_the_counter(
    make_backbone: Make,
) -> None:
    backbone = make_backbone()
    x_t = images(3)
    before = backbone.eps(x_t, 400)
    with backbone.count_calls() as calls:
        twin = backbone.twin()
        assert torch.equal(twin.eps(x_t, 400), before)
        with torch.no_grad():
            twin.unet.conv_in.weight.add_(1.0)
        assert not torch.equal(twin.eps(x_t, 400), before)
    assert calls.unet_calls == 6
    assert torch.equal(backbone.eps(x_t, 400), before)


@pytest.mark.parametrize(
    "family, settings",
    [
        ("ddpm", {"prediction": "v"}),
        ("adm", {"learned_sigma": True}),
        ("ddpm", {"patch_size": 2}),
    ],
)
def test_a_pass_with_gradient_is_a_plain_pass(
    make_backbone: Make, family: str, settings: dict[str, Any]
) -> None:
    backbone = make_backbone(family, **settings)
    x_t = images(5)
    with backbone.count_calls() as calls:
        eps = backbone.eps_with_grad(x_t, 400)
    assert (calls.encoder, calls.decoder) == (5, 5)
    assert not eps.requires_grad
    torch.testing.assert_close(eps, backbone.eps(x_t, 400), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="do not fit"):
        backbone.eps_with_grad(x_t[:, :, :8], 400)


def test_gradients_reach_all_weights_and_the_image(make_backbone: Make) -> None:
    twin = make_backbone().twin()
    twin.unet.double().requires_grad_(True)
    draw = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, 3, 16, 16, generator=draw, dtype=torch.float64, requires_grad=True)
    twin.eps_with_grad(x_t, 400).pow(2).sum().backward()
    tensors = {**dict(twin.unet.named_parameters()), "x_t": x_t}
    along = {n: torch.randn(x.shape, generator=draw, dtype=x.dtype) for n, x in tensors.items()}
    slope = 0.0
    for name, tensor in tensors.items():
        assert tensor.grad is not None and float(tensor.grad.abs().max()) > 0, name
        slope += float((tensor.grad * along[name]).sum())
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for name, tensor in tensors.items():
                tensor += step * along[name]
            values.append(float(twin.eps_with_grad(x_t, 400).pow(2).sum()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)
