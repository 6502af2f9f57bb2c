"""Classifiers: a row depends on its image alone, and damaged files are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.domains.rendering.faces import ATTRIBUTES
from casl_bench.models.attribute_classifier import AttributeClassifier, build_classifier
from casl_bench.models.model_files import write_model
from casl_bench.models.scorers import Differentiable

CONFIGS = {
    "plain": {"architecture": "plain", "widths": [4, 4, 8, 8]},
    "depthwise": {"architecture": "depthwise", "widths": [8, 8], "blocks": [1, 1]},
    "residual": {"architecture": "residual", "widths": [4, 8, 8]},
}


@pytest.fixture(params=sorted(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config = {**CONFIGS[request.param], "attributes": list(ATTRIBUTES), "image_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_classifier(config)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors["calibration.scale"] = torch.full((10,), 2.0)
    tensors["calibration.bias"] = torch.full((10,), 0.5)
    write_model(tmp_path / "c", tensors, {"name": "c", "config": config})
    return tmp_path / "c"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(21, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_row_depends_on_its_image_alone(folder: Path, images: Tensor) -> None:
    classifier = AttributeClassifier.load(folder)
    whole = classifier.logits(images)
    assert whole.shape == (21, 10)
    for n in (1, 3, 16, 17):
        assert torch.equal(classifier.logits(images[:n]), whole[:n])
    order = torch.arange(20, -1, -1)
    assert torch.equal(classifier.logits(images[order]), whole[order])


def test_calibration_is_applied_and_pixels_are_clamped(folder: Path, images: Tensor) -> None:
    classifier = AttributeClassifier.load(folder)
    raw = classifier._network(images[:16])
    assert torch.allclose(classifier.logits(images[:16]), raw * 2 + 0.5, atol=1e-4)
    assert torch.equal(classifier.logits(images * 9), classifier.logits((images * 9).clamp(-1, 1)))


def test_gradients_flow_to_the_image_that_a_row_is_about(folder: Path, images: Tensor) -> None:
    classifier = AttributeClassifier.load(folder)
    assert isinstance(classifier, Differentiable)
    pixels = (1.1 * images).requires_grad_(True)
    logits = classifier.logits_with_grad(pixels)
    assert torch.allclose(logits, classifier.logits(pixels), atol=1e-5)
    (slope,) = torch.autograd.grad(logits[18, 2], pixels)
    assert slope[18].any() and not slope[torch.arange(21) != 18].any()
    assert not slope[pixels.abs() > 1].any()
    step = 1e-3 * slope / slope.norm()
    rise = (classifier.logits(pixels + step) - classifier.logits(pixels - step))[18, 2]
    assert float(rise) == pytest.approx(2e-3 * float(slope.norm()), rel=0.05)
    assert not classifier.logits(pixels).requires_grad


def test_loading_leaves_the_global_random_state(folder: Path) -> None:
    before = torch.get_rng_state()
    AttributeClassifier.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="32, 32"):
        AttributeClassifier.load(folder).logits(torch.zeros(1, 3, 32, 32))


def test_no_images_give_no_rows(folder: Path) -> None:
    assert AttributeClassifier.load(folder).logits(torch.zeros(0, 3, 64, 64)).shape == (0, 10)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidBenchmarkError, match="truncated") as caught:
        AttributeClassifier.load(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    config = {**CONFIGS["plain"], "attributes": list(ATTRIBUTES), "image_size": 64}
    write_model(tmp_path / "d", {"network.x": torch.zeros(2)}, {"name": "d", "config": config})
    with pytest.raises(InvalidBenchmarkError, match="do not fit"):
        AttributeClassifier.load(tmp_path / "d")
