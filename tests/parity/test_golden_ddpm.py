"""The DDPM family's settings and names are what parity hangs on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.models.unet import build_unet, filled_unet
from casl_bench.photos.checkpoints.formats import Architecture, ddpm_state

TOLERANCE = 1e-5
MARGIN = 10


@pytest.fixture(scope="module")
def reference(load_reference: Any) -> Any:
    return load_reference("ddpm")


def error_of_eps(reference: Any, unet: Any, t: int = 500) -> float:
    with torch.no_grad():
        eps = unet(reference.tensors[f"xt_{t}"], t).sample
    expected = reference.tensors[f"eps_{t}"]
    return float((eps - expected).abs().max() / expected.abs().max())


def test_plain_diffusers_model_agrees(reference: Any) -> None:
    assert error_of_eps(reference, reference.unet()) <= TOLERANCE


@pytest.mark.parametrize(
    "fault",
    [
        {"downsample_padding": 1},
        {"flip_sin_to_cos": True},
        {"freq_shift": 0},
        {"attention_head_dim": 8},
        {"norm_eps": 1e-3},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_wrong_setting_is_noticed(reference: Any, fault: dict[str, Any]) -> None:
    assert error_of_eps(reference, reference.unet(**fault)) > MARGIN * TOLERANCE


def test_swapped_projections_are_noticed(reference: Any) -> None:
    def swapped(own: Any) -> dict[str, Tensor]:
        state = reference.state(own)
        names = [k for k in state if ".to_q." in k]
        return state | {k: state[k.replace("to_q", "to_v")] for k in names}

    unet = filled_unet(reference.unet_config(), swapped)
    assert error_of_eps(reference, unet) > MARGIN * TOLERANCE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("mid.attn_1.q.weight"), "missing mid.attn_1.q.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda w: w.update({"conv_in.weight": torch.zeros(32, 4, 3, 3)}),
            "conv_in.weight is [32, 4, 3, 3], not [32, 3, 3, 3]",
        ),
        (
            lambda w: w.update({"norm_out.bias": torch.full((32,), torch.nan)}),
            "norm_out.bias holds NaN or infinity",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "nan"],
)
def test_unfit_weights_are_named(reference: Any, change: Any, told: str) -> None:
    weights = dict(reference.weights)
    change(weights)
    own = build_unet(reference.unet_config()).state_dict()
    with pytest.raises(InvalidBenchmarkError, match="weights do not fit") as raised:
        ddpm_state(weights, own, "celeba_hq.ckpt")
    assert told in str(raised.value)
    assert "celeba_hq.ckpt" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_published_architecture() -> None:
    config = Architecture("ddpm", 3, 3, 128, (1, 1, 2, 2, 4, 4), 2, (4,)).unet_config(256)
    with torch.device("meta"):
        unet = build_unet(config)
    assert config["down_block_types"].index("AttnDownBlock2D") == 4
    assert config["up_block_types"].index("AttnUpBlock2D") == 1
    # As the published checkpoints count: 113.7 million.
    assert sum(p.numel() for p in unet.parameters()) == 113_673_219
