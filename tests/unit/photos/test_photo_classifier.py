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
from casl_bench.models.scorers import AttributeScorer, Differentiable, label_source
from casl_bench.photos.scorers.classifier import PhotoClassifier, build_network

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


@pytest.fixture
def script(tmp_path: Path) -> Make:
    def make(network: nn.Module | None = None, **settings: Any) -> Path:
        path = tmp_path / "mine.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script((network or Colours()).eval()), str(path))
        path.with_suffix(".json").write_text(json.dumps({**SIDECAR, **settings}))
        return path

    return make


@pytest.fixture
def weights(tmp_path: Path) -> Make:
    def make(architecture: str = "timm:test_resnet", **settings: Any) -> Path:
        path = tmp_path / "mine.safetensors"
        with torch.random.fork_rng():
            torch.manual_seed(3)
        save_file(build_network(architecture, 3).state_dict(), path)
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


def test_columns_are_picked_and_negated(script: Make) -> None:
    scorer = _load(script())
    colour = torch.tensor([0.2, -0.4, 0.6])
    got = scorer.logits(colour[None, :, None, None].expand(2, 3, 32, 32))
    mean, std = torch.tensor(SIDECAR["mean"]), torch.tensor(SIDECAR["std"])
    smiling, no_beard, young = ((colour + 1) / 2 - mean) / std
    assert torch.allclose(got[0], torch.stack([young, smiling, -no_beard]), atol=1e-5)
    assert scorer.attributes == WANTED and scorer.info.kind == "attributes"
    assert isinstance(scorer, AttributeScorer) and label_source(scorer) == "annotation"


def test_calibration_comes_before_the_sign(script: Make, images: Tensor) -> None:
    plain = _load(script()).logits(images)
    scale, bias = [2.0, 3.0, 0.5], [0.1, 0.2, 0.3]
    tuned = _load(script(calibration={"scale": scale, "bias": bias})).logits(images)
    expected = plain * torch.tensor([0.5, 2, 3]) + torch.tensor([0.3, 0.1, -0.2])
    assert torch.allclose(tuned, expected, atol=1e-5)


def test_two_outputs_and_probabilities_give_the_same_logits(script: Make, images: Tensor) -> None:
    class Sure(Colours):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x.mean(dim=(2, 3)) * self.gain)

    plain = _load(script()).logits(images)
    pairs = _load(script(Colours(repeat=2), positive_class=1)).logits(images)
    assert torch.allclose(pairs, 2 * plain, atol=1e-5)
    assert torch.allclose(
        _load(script(Colours(repeat=2), positive_class=0)).logits(images), -pairs, atol=1e-5
    )
    sure = _load(script(Sure(), output="probabilities")).logits(images)
    assert torch.allclose(sure, plain, atol=1e-4)


@pytest.mark.parametrize("kind", ["script", "weights"])
def test_a_row_depends_on_its_image_alone(
    kind: str, images: Tensor, request: pytest.FixtureRequest
) -> None:
    scorer = _load(request.getfixturevalue(kind)())
    whole = scorer.logits(images)
    assert whole.shape == (21, 3) and whole.dtype == torch.float32
    for n in (1, 3, 16, 17):
        assert torch.equal(scorer.logits(images[:n]), whole[:n])
    assert torch.equal(scorer.logits(images * 9), scorer.logits((images * 9).clamp(-1, 1)))
    assert scorer.logits(images[:0]).shape == (0, 3)
    with pytest.raises(InputError, match="21, 1, 40, 40"):
        scorer.logits(images[:, :1])


@pytest.mark.parametrize("kind", ["script", "weights"])
def test_gradients_flow_to_the_image_that_a_row_is_about(
    kind: str, images: Tensor, request: pytest.FixtureRequest
) -> None:
    scorer = _load(request.getfixturevalue(kind)())
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


def test_the_description_is_part_of_the_identity(script: Make) -> None:
    hashes = {_load(script(**kw)).info.weights_hash for kw in ({}, {"std": [1, 1, 1]}, {})}
    assert len(hashes) == 2
    assert _load(script(name="my_net")).info.name == "my_net"


def test_an_attribute_it_does_not_tell_is_named(script: Make) -> None:
    path = script()
    with pytest.raises(UsageError, match="does not know 'bald' ") as caught:
        PhotoClassifier.load(path, (*WANTED, "bald"), {**PUBLISHED, "bald": ("Bald", 1)})
    assert "(Bald)" in str(caught.value) and "smiling" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mean": [0.5]}, "mean"),
        ({"std": [0, 1, 1]}, "std"),
        ({"atributes": []}, "atributes"),
        ({"attributes": ["a", "a"]}, "twice"),
        ({"calibration": {"scale": [1], "bias": [0]}}, "one scale and one bias"),
        ({"calibration": {"scale": [1, 1, -1], "bias": [0, 0, 0]}}, "greater than 0"),
    ],
)
def test_a_wrong_description_is_refused(script: Make, settings: dict[str, Any], match: str) -> None:
    _refused(script(**settings), UsageError, match)


def test_no_description_is_refused(script: Make) -> None:
    path = script()
    path.with_suffix(".json").unlink()
    _refused(path, UsageError, "no description")


def test_outputs_other_than_described_are_refused(script: Make) -> None:
    _refused(script(attributes=[*NAMES, "Male"]), InvalidBenchmarkError, "not 4 numbers")
    _refused(script(output="probabilities"), InvalidBenchmarkError, "no probabilities")
    _refused(script(nn.Conv2d(4, 1, 3)), InvalidBenchmarkError, "cannot take images of 32")


def test_code_in_a_pickle_is_not_run(script: Make, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    path = script()
    torch.save({"network": Trap()}, path)
    _refused(path, InvalidBenchmarkError, "not a TorchScript file")
    path.write_bytes(pickle.dumps(Trap()))
    _refused(path, InvalidBenchmarkError, "not a TorchScript file")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["script", "weights"])
def test_truncated_and_absent_weights_are_refused(
    kind: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)()
    path.write_bytes(path.read_bytes()[:-100])
    _refused(path, InvalidBenchmarkError, "damaged|unreadable")
    path.unlink()
    _refused(path, InvalidBenchmarkError, "no weights")


def test_nan_missing_and_foreign_weights_are_refused(weights: Make, script: Make) -> None:
    path = weights()
    good = load_file(path)
    save_file({**good, "fc.bias": good["fc.bias"] * torch.nan}, path)
    _refused(path, InvalidBenchmarkError, "fc.bias holds NaN")
    save_file({k: v for k, v in good.items() if k != "fc.bias"}, path)
    _refused(path, InvalidBenchmarkError, "missing fc.bias")
    save_file({**good, "extra": torch.zeros(1)}, path)
    _refused(path, InvalidBenchmarkError, "unexpected extra")
    spoilt = Colours()
    spoilt.gain.data[0] = torch.nan
    _refused(script(spoilt), InvalidBenchmarkError, "NaN or infinity in 'gain'")


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
