"""A user's classifier: columns by name, sign, calibration; doubtful files refused in one line."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from casl_bench.core.errors import BenchError, InputError, InvalidBenchmarkError, UsageError
from casl_bench.models.scorers import AttributeScorer, Differentiable
from casl_bench.photos.scorers.classifier import (
    ClassifierSidecar,
    PhotoClassifier,
    build_network,
)

NAMES = ["Smiling", "No_Beard", "young"]
PUBLISHED = {"smiling": ("Smiling", 1), "beard": ("No_Beard", -1), "young": ("Young", 1)}
WANTED = ("young", "smiling", "beard")
SIDECAR: dict[str, Any] = {
    "attributes": NAMES,
    "image_size": 32,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.25],
}
Make = Callable[..., Path]


class Colours(nn.Module):
    """The mean of each channel, as it arrives; `repeat` numbers of each."""

    def __init__(self, repeat: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.repeat = repeat

    def forward(self, x: Tensor) -> Tensor:
        out = x.mean(dim=(2, 3)) * self.gain
        return torch.stack([-out, out], 2) if self.repeat == 2 else out


@pytest.fixture
def images() -> Tensor:
    return torch.rand(21, 3, 40, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1


def made(network: nn.Module | None = None, **settings: Any) -> PhotoClassifier:
    sidecar = ClassifierSidecar.model_validate({**SIDECAR, **settings})
    return PhotoClassifier("mine", "", network or Colours(), sidecar, WANTED, PUBLISHED)


@pytest.fixture
def weights(tmp_path: Path) -> Make:
    def make(
        architecture: str = "timm:test_resnet", name: str = "mine.safetensors", **settings: Any
    ) -> Path:
        path = tmp_path / name
        state = build_network(architecture, 3).state_dict()
        if path.suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        settings = {**SIDECAR, "architecture": architecture, **settings}
        path.with_suffix(".json").write_text(json.dumps(settings))
        return path

    return make


def _load(path: Path, attributes: tuple[str, ...] = WANTED) -> PhotoClassifier:
    return PhotoClassifier.load(path, attributes, PUBLISHED)


def _refused(path: Path, kind: type[BenchError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        _load(path)
    assert "\n" not in str(caught.value)


def test_columns_are_picked_and_negated() -> None:
    scorer = made()
    colour = torch.tensor([0.2, -0.4, 0.6])
    got = scorer.logits(colour[None, :, None, None].expand(2, 3, 32, 32))
    mean, std = torch.tensor(SIDECAR["mean"]), torch.tensor(SIDECAR["std"])
    smiling, no_beard, young = ((colour + 1) / 2 - mean) / std
    assert torch.allclose(got[0], torch.stack([young, smiling, -no_beard]), atol=1e-5)
    assert scorer.attributes == WANTED and scorer.info.kind == "attributes"
    assert isinstance(scorer, AttributeScorer)


def test_calibration_comes_before_the_sign(images: Tensor) -> None:
    plain = made().logits(images)
    scale, bias = [2.0, 3.0, 0.5], [0.1, 0.2, 0.3]
    tuned = made(calibration={"scale": scale, "bias": bias}).logits(images)
    expected = plain * torch.tensor([0.5, 2, 3]) + torch.tensor([0.3, 0.1, -0.2])
    assert torch.allclose(tuned, expected, atol=1e-5)


def test_two_outputs_and_probabilities_give_the_same_logits(images: Tensor) -> None:
    class Sure(Colours):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x.mean(dim=(2, 3)) * self.gain)

    plain = made().logits(images)
    pairs = made(Colours(repeat=2), positive_class=1).logits(images)
    assert torch.allclose(pairs, 2 * plain, atol=1e-5)
    swapped = made(Colours(repeat=2), positive_class=0).logits(images)
    assert torch.allclose(swapped, -pairs, atol=1e-5)
    sure = made(Sure(), output="probabilities").logits(images)
    assert torch.allclose(sure, plain, atol=1e-4)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pt"])
def test_a_row_depends_on_its_image_alone(name: str, weights: Make, images: Tensor) -> None:
    scorer = _load(weights(name=name))
    whole = scorer.logits(images)
    assert whole.shape == (21, 3) and whole.dtype == torch.float32
    for n in (1, 3, 16, 17):
        assert torch.equal(scorer.logits(images[:n]), whole[:n])
    assert torch.equal(scorer.logits(images * 9), scorer.logits((images * 9).clamp(-1, 1)))
    assert scorer.logits(images[:0]).shape == (0, 3)
    with pytest.raises(InputError, match="21, 1, 40, 40"):
        scorer.logits(images[:, :1])


def test_gradients_flow_to_the_image_that_a_row_is_about(weights: Make, images: Tensor) -> None:
    scorer = _load(weights())
    assert isinstance(scorer, Differentiable)
    pixels = (1.1 * images).requires_grad_(True)
    logits = scorer.logits_with_grad(pixels)
    assert torch.allclose(logits, scorer.logits(pixels), atol=1e-5)
    (slope,) = torch.autograd.grad(logits[18, 2], pixels)
    assert slope[18].any() and not slope[torch.arange(21) != 18].any()
    assert not slope[pixels.abs() > 1].any()
    assert not scorer.logits(pixels).requires_grad


def test_loading_leaves_the_global_random_state(weights: Make) -> None:
    path, before = weights(), torch.get_rng_state()
    _load(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_torchvision_builds_too(weights: Make, images: Tensor) -> None:
    path = weights("torchvision:shufflenet_v2_x0_5")
    assert torch.isfinite(_load(path).logits(images[:1])).all()


def test_the_description_is_part_of_the_identity(weights: Make) -> None:
    path = weights()
    described = json.loads(path.with_suffix(".json").read_text())
    hashes = set()
    for more in ({}, {"std": [1, 1, 1]}, {}, {"name": "my_net"}):
        path.with_suffix(".json").write_text(json.dumps({**described, **more}))
        hashes.add(_load(path).info.weights_hash)
    assert len(hashes) == 3
    assert _load(path).info.name == "my_net"


def test_an_attribute_it_does_not_tell_is_named(weights: Make) -> None:
    path = weights()
    with pytest.raises(UsageError, match="does not know 'bald' ") as caught:
        PhotoClassifier.load(path, (*WANTED, "bald"), {**PUBLISHED, "bald": ("Bald", 1)})
    assert "(Bald)" in str(caught.value) and "smiling" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mean": [0.5]}, "mean"),
        ({"std": [0, 1, 1]}, "std"),
        ({"atributes": []}, "atributes"),
        ({"image_size": 10**12}, "image_size"),
        ({"mean": [float("nan"), 0, 0]}, "mean"),
        ({"attributes": ["a", "a"]}, "twice"),
        ({"calibration": {"scale": [1], "bias": [0]}}, "one scale and one bias"),
        ({"calibration": {"scale": [1, 1, -1], "bias": [0, 0, 0]}}, "greater than 0"),
    ],
)
def test_a_wrong_description_is_refused(
    weights: Make, settings: dict[str, Any], match: str
) -> None:
    _refused(weights(**settings), UsageError, match)


def test_no_description_is_refused(weights: Make) -> None:
    path = weights()
    path.with_suffix(".json").unlink()
    _refused(path, UsageError, "unreadable description of a classifier")


@pytest.mark.parametrize(
    ("network", "settings", "match"),
    [
        (None, {"attributes": [*NAMES, "Male"]}, "not 4 numbers"),
        (None, {"output": "probabilities"}, "no probabilities"),
        (nn.Conv2d(4, 1, 3), {}, "cannot take images of 32"),
    ],
)
def test_outputs_other_than_described_are_refused(
    network: nn.Module | None, settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidBenchmarkError, match=match) as caught:
        made(network, **settings)
    assert "\n" not in str(caught.value)


def test_a_torchscript_file_is_refused_with_what_to_do(weights: Make) -> None:
    path = weights(name="mine.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Colours().eval()), str(path))
    _refused(path, InvalidBenchmarkError, "TorchScript file is a program.*convert it")


def test_code_in_a_pickle_is_not_run(weights: Make, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    path = weights(name="mine.pt")
    torch.save({"network": Trap()}, path)
    _refused(path, InvalidBenchmarkError, "which is code and is not run")
    path.write_bytes(pickle.dumps(Trap()))
    _refused(path, InvalidBenchmarkError, "unreadable weights")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pt"])
def test_truncated_and_absent_weights_are_refused(name: str, weights: Make) -> None:
    path = weights(name=name)
    path.write_bytes(path.read_bytes()[:-100])
    _refused(path, InvalidBenchmarkError, "unreadable")
    path.unlink()
    _refused(path, InvalidBenchmarkError, "unreadable weights: No such file")


def test_nan_missing_and_foreign_weights_are_refused(weights: Make) -> None:
    path = weights()
    good = load_file(path)
    save_file({**good, "fc.bias": good["fc.bias"] * torch.nan}, path)
    _refused(path, InvalidBenchmarkError, "fc.bias holds NaN")
    save_file({k: v for k, v in good.items() if k != "fc.bias"}, path)
    _refused(path, InvalidBenchmarkError, "missing fc.bias")
    save_file({**good, "extra": torch.zeros(1)}, path)
    _refused(path, InvalidBenchmarkError, "unexpected extra")


def test_weights_other_than_named_are_refused(weights: Make) -> None:
    _refused(weights(sha256="0" * 64), InvalidBenchmarkError, "truncated or changed")


@pytest.mark.parametrize(
    "name", ["resnet18", "timm:no_such", "torchvision:no_such", "timm:hf-hub:a/b"]
)
def test_unknown_architectures_are_refused(weights: Make, name: str) -> None:
    path = weights()
    path.with_suffix(".json").write_text(json.dumps({**SIDECAR, "architecture": name}))
    _refused(path, UsageError, "no such architecture")
    path.with_suffix(".json").write_text(json.dumps(SIDECAR))
    _refused(path, UsageError, "does not name the architecture")
