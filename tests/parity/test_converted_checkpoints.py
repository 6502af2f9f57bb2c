"""The reference's files, converted, written and opened again, compute what the reference does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from casl_bench.cli import main as cli
from casl_bench.models.diffusers_folder import write_diffusers_folder
from casl_bench.photos.checkpoints.convert import convert, open_backbone
from casl_bench.photos.checkpoints.formats import architecture_of

TOLERANCE = 1e-5
# Of weights rounded to half precision.
HALF_TOLERANCE = 3e-2
TIMES = (0, 47, 500, 999)
# What the file does not tell.
SETTINGS: dict[str, dict[str, Any]] = {
    "ddpm": {"image_size": 32},
    "adm": {"image_size": 32, "head_channels": 32},
}


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).abs().max() / expected.abs().max())


def errors_of(reference: Any, backbone: Any) -> dict[str, float]:
    """Of eps and h at the golden file's timesteps."""
    errors = {}
    for t in TIMES:
        state = backbone.encode(reference.tensors[f"xt_{t}"], t)
        errors[f"h_{t}"] = relative_error(state.h, reference.tensors[f"h_{t}"])
        errors[f"eps_{t}"] = relative_error(backbone.decode(state), reference.tensors[f"eps_{t}"])
    return errors


@pytest.fixture(scope="module", params=["ddpm", "adm"])
def reference(request: pytest.FixtureRequest, load_reference: Any) -> Any:
    return load_reference(request.param)


@pytest.fixture
def checkpoint(reference: Any, golden_path: Callable[[str], Path]) -> Path:
    return golden_path(f"{reference.family}/unet.pt")


@pytest.mark.parametrize("half", [False, True])
def test_converted_and_opened_it_agrees(
    reference: Any, checkpoint: Path, tmp_path: Path, half: bool
) -> None:
    made = convert(checkpoint, name="golden", **SETTINGS[reference.family])
    dtype = torch.float16 if half else torch.float32
    write_diffusers_folder(tmp_path / "out", made.config, made.unet, dtype=dtype)
    errors = errors_of(reference, open_backbone(tmp_path / "out", name="golden", micro_batch=2))
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    assert {k: e for k, e in errors.items() if not e <= tolerance} == {}
    assert not half or max(errors.values()) > TOLERANCE


def test_opened_as_it_is_it_agrees(reference: Any, checkpoint: Path) -> None:
    settings = SETTINGS[reference.family]
    errors = errors_of(
        reference, open_backbone(checkpoint, name="golden", micro_batch=2, **settings)
    )
    assert {k: e for k, e in errors.items() if not e <= TOLERANCE} == {}


def test_an_assumption_that_is_wrong_is_noticed(
    load_reference: Any, golden_path: Callable[[str], Path]
) -> None:
    """Shapes alone do not tell the width of a head: 64 is assumed, 32 was trained."""
    reference = load_reference("adm")
    made = convert(golden_path("adm/unet.pt"), name="golden", image_size=32)
    assert made.assumed == ("64 channels a head",)
    with torch.no_grad():
        eps = made.unet(reference.tensors["xt_500"], 500).sample[:, :3]
    assert relative_error(eps, reference.tensors["eps_500"]) > 10 * TOLERANCE


def test_the_command_writes_what_diffusers_reads(
    reference: Any, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS[reference.family].items()
    ]
    out = tmp_path / "golden"
    assert cli.main(["convert", str(checkpoint), "--out", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert f"family        {reference.family}" in said and "h-space       64 × 8 × 8" in said
    unet = UNet2DModel.from_pretrained(out)
    with torch.no_grad():
        eps = unet(reference.tensors["xt_500"], 500).sample[:, :3]
    assert relative_error(eps, reference.tensors["eps_500"]) <= TOLERANCE


def test_the_form_is_the_reference_s(reference: Any) -> None:
    found = architecture_of(reference.weights, "unet.pt")
    model = reference.config["config"]
    assert found.attention_resolutions(32) == (16,)
    if reference.family == "ddpm":
        model = model["model"]
        assert found.base_channels == model["ch"]
        assert list(found.multipliers) == model["ch_mult"]
        assert found.out_channels == model["out_ch"]
    else:
        assert found.base_channels == model["model_channels"]
        assert list(found.multipliers) == model["channel_mult"]
        assert found.out_channels == model["out_channels"]
    assert found.res_blocks == model["num_res_blocks"]
    assert found.learned_sigma == (reference.family == "adm")
