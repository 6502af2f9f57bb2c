"""The ADM family's settings and names are what parity hangs on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.models.unet import build_unet, filled_unet
from casl_bench.photos.checkpoints.formats import Architecture, adm_state

TOLERANCE = 1e-5
MARGIN = 10


@pytest.fixture(scope="module")
def reference(load_reference: Any) -> Any:
    return load_reference("adm")


def error_of_eps(reference: Any, unet: Any, t: int = 500, half: int = 0) -> float:
    with torch.no_grad():
        eps = unet(reference.tensors[f"xt_{t}"], t).sample.chunk(2, 1)[half]
    expected = reference.tensors[f"eps_{t}"]
    return float((eps - expected).abs().max() / expected.abs().max())


def test_plain_diffusers_model_agrees(reference: Any) -> None:
    assert error_of_eps(reference, reference.unet()) <= TOLERANCE


@pytest.mark.parametrize(
    "fault",
    [
        {"flip_sin_to_cos": False},
        {"freq_shift": 1},
        {"attention_head_dim": 16},
        {"norm_eps": 1e-3},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_wrong_setting_is_noticed(reference: Any, fault: dict[str, Any]) -> None:
    assert error_of_eps(reference, reference.unet(**fault)) > MARGIN * TOLERANCE


def test_dropped_norm_of_the_middle_attention_is_refused(reference: Any) -> None:
    with pytest.raises(InvalidBenchmarkError, match=r"unexpected middle_block\.1\.norm\.weight"):
        reference.unet(attn_norm_num_groups=None)


def test_variance_taken_for_eps_is_noticed(reference: Any) -> None:
    assert error_of_eps(reference, reference.unet(), half=1) > MARGIN * TOLERANCE


def test_wrong_order_of_qkv_is_noticed(reference: Any) -> None:
    unet = filled_unet(
        reference.unet_config(), lambda own: reference.state(own, new_attention_order=True)
    )
    assert error_of_eps(reference, unet) > MARGIN * TOLERANCE


def test_new_attention_order(reference: Any) -> None:
    heads, width = 2, 32
    repacked = {
        k: v.unflatten(0, (heads, 3, width)).transpose(0, 1).reshape(v.shape) if ".qkv." in k else v
        for k, v in reference.weights.items()
    }
    unet = filled_unet(
        reference.unet_config(),
        lambda own: adm_state(repacked, own, "unet.pt", width, new_attention_order=True),
    )
    assert error_of_eps(reference, unet) <= TOLERANCE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("middle_block.1.qkv.bias"), "missing middle_block.1.qkv.bias"),
        (lambda w: w.update({"label_emb.weight": torch.zeros(1)}), "unexpected label_emb.weight"),
        (
            lambda w: w.update({"out.2.weight": torch.zeros(3, 32, 3, 3)}),
            "out.2.weight is [3, 32, 3, 3], not [6, 32, 3, 3]",
        ),
        (
            lambda w: w.update({"middle_block.1.qkv.weight": torch.zeros(100, 64, 1)}),
            "middle_block.1.qkv.weight is [100, 64, 1], which cannot be taken apart",
        ),
        (
            lambda w: w.update({"out.0.bias": torch.full((32,), torch.inf)}),
            "out.0.bias holds NaN or infinity",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "qkv", "infinite"],
)
def test_unfit_weights_are_named(reference: Any, change: Any, told: str) -> None:
    weights = dict(reference.weights)
    change(weights)
    own = build_unet(reference.unet_config()).state_dict()
    with pytest.raises(InvalidBenchmarkError, match="weights do not fit") as raised:
        adm_state(weights, own, "afhq_dog.pt", 32)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_published_architecture() -> None:
    config = Architecture("adm", 3, 6, 128, (1, 1, 2, 2, 4, 4), 1, (4,)).unet_config(256, 64)
    with torch.device("meta"):
        unet = build_unet(config)
    assert config["down_block_types"].index("AttnDownBlock2D") == 4
    assert unet.time_embedding.linear_2.out_features == 512
    assert unet.mid_block is not None
