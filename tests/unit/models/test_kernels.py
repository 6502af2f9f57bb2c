from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError, UsageError
from casl_bench.models import backbone as kernels_module
from casl_bench.models.backbone import Backbone, Kernels
from casl_bench.runs.progress import PhaseCosts

Make = Callable[..., Backbone]
EVERY = [Kernels(**{name: True}) for name in Kernels.model_fields]
TOLERANCE = {"channels_last": 1e-5, "bf16": 3e-2, "compiled": 1e-5}
"""Of eps, relative to its largest value."""


Called = list[nn.Module]


@pytest.fixture(autouse=True)
def compiled_calls(monkeypatch: pytest.MonkeyPatch) -> Called:
    """Blocks that were called compiled. No code is made of them: that takes minutes."""
    called: Called = []

    def mark(block: nn.Module, **options: object) -> None:
        def call(*arguments: object, **named: object) -> object:
            called.append(block)
            return block._call_impl(*arguments, **named)

        block._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", mark)
    monkeypatch.setattr(kernels_module, "has_cpp_compiler", lambda: True)
    return called


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "kernels"),
    [
        ("reference", Kernels()),
        ("bf16", Kernels(bf16=True)),
        ("bf16, channels_last", Kernels(channels_last=True, bf16=True)),
        ("compiled,compiled", Kernels(compiled=True)),
    ],
)
def test_kernels_are_read_and_told_by_name(text: str, kernels: Kernels) -> None:
    assert Kernels.parse(text) == kernels == Kernels.parse(str(kernels))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chanels_last", "did you mean 'channels_last'"),
        ("", "unknown kernels ''"),
        ("reference,bf16", "is none of the others"),
    ],
)
def test_other_names_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Kernels.parse(text)


@pytest.mark.parametrize("kernels", EVERY, ids=str)
def test_eps_stays_the_same_within_a_tolerance(make_backbone: Make, kernels: Kernels) -> None:
    x_t = images(4)
    reference = make_backbone()
    other = make_backbone().use(kernels)
    eps, expected = other.eps(x_t, 300), reference.eps(x_t, 300)
    assert eps.dtype == torch.float32
    apart = float((eps - expected).abs().max() / expected.abs().max())
    assert apart <= TOLERANCE[str(kernels)]
    assert (apart > 1e-4) == kernels.bf16  # autocast is on there, and nowhere else


@pytest.mark.parametrize("kernels", EVERY, ids=str)
def test_an_image_does_not_feel_its_batch(make_backbone: Make, kernels: Kernels) -> None:
    backbone = make_backbone().use(kernels)
    x_t = images(9)
    state = backbone.encode(x_t, 300)
    eps = backbone.decode(state)
    for i in (0, 8):
        alone = backbone.encode(x_t[i : i + 1], 300)
        assert torch.equal(alone.h[0], state.h[i]) and alone.h.dtype == torch.float32
        assert torch.equal(backbone.decode(alone)[0], eps[i])
    assert torch.equal(state.temb, backbone.time_embedding(300, 9))


@pytest.mark.parametrize("kernels", EVERY, ids=str)
def test_losses_reach_delta_h_and_the_weights_of_a_twin(
    make_backbone: Make, kernels: Kernels
) -> None:
    backbone = make_backbone().use(kernels)
    delta_h = torch.zeros(3, *backbone.h_shape, requires_grad=True)
    backbone.decode(backbone.encode(images(3), 300), delta_h).pow(2).sum().backward()
    twin = backbone.twin()
    twin.unet.requires_grad_(True)
    twin.eps_with_grad(images(2), 300).pow(2).sum().backward()
    gradients = [delta_h.grad, twin.unet.conv_in.weight.grad]
    assert all(g is not None and bool(g.isfinite().all() & (g != 0).any()) for g in gradients)


def test_channels_last_lays_activations_out_so(make_backbone: Make) -> None:
    seen: list[bool] = []
    backbone = make_backbone().use(Kernels(channels_last=True))
    backbone.unet.conv_in.register_forward_hook(
        lambda m, i, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    backbone.encode(images(2), 300)
    assert seen == [True]


def test_blocks_are_compiled_and_their_passes_counted(
    make_backbone: Make, compiled_calls: Called
) -> None:
    backbone, costs = make_backbone().use(Kernels(compiled=True)), PhaseCosts()
    unet, rows = backbone.unet, backbone.micro_batch
    with costs.count(unet):
        backbone.eps(images(rows), 300)
        assert compiled_calls == [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        backbone.twin().eps(images(rows), 300)
    assert costs.total == 2 * rows
    assert len(compiled_calls) == len(set(compiled_calls))  # a copy runs as written


@pytest.mark.skipif(not os.environ.get("CASL_BENCH_FULL_SIZE"), reason="compiling takes minutes")
@pytest.mark.parametrize("others", ["", ",channels_last,bf16"])
def test_compiled_code_gives_eps_and_is_made_once(
    make_backbone: Make, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    monkeypatch.undo()
    reference = make_backbone()
    backbone = make_backbone().use(Kernels.parse(f"compiled{others}"))
    rows = backbone.micro_batch
    expected = reference.eps(images(rows), 300)
    eps = backbone.eps(images(rows), 300)
    assert (
        float((eps - expected).abs().max() / expected.abs().max())
        <= TOLERANCE["bf16" if others else "compiled"]
    )
    assert torch.equal(backbone.eps(images(rows), 300), eps)
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    backbone.eps(images(rows), 500)
    delta_h = torch.zeros(3, *backbone.h_shape, requires_grad=True)
    backbone.decode(backbone.encode(images(3), 300), delta_h).sum().backward()
    # Not for another timestep, and not for a gradient.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made > 0


def test_the_backbone_is_known_by_its_kernels(make_backbone: Make) -> None:
    hashes = {make_backbone().use(k).weights_hash for k in (*EVERY, Kernels(), Kernels(
        channels_last=True, bf16=True))}  # fmt: skip
    assert len(hashes) == len(EVERY) + 2
    assert make_backbone().weights_hash in hashes
    backbone = make_backbone().use(EVERY[0])
    assert backbone.use(EVERY[0]).weights_hash == backbone.weights_hash
    with pytest.raises(InputError, match="already"):
        backbone.use(Kernels())


def test_what_a_device_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"mps has no compiler.*leave 'compiled' out"):
        Kernels(compiled=True).check("mps")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UsageError, match="cuda:0 has no bfloat16"):
        Kernels(bf16=True).check("cuda:0")
    monkeypatch.setattr(kernels_module, "has_cpp_compiler", lambda: False)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        Kernels(compiled=True).check("cpu")
    Kernels(channels_last=True, bf16=True).check("cpu")


def test_a_compiler_is_looked_for_where_cxx_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not kernels_module.has_cpp_compiler()
