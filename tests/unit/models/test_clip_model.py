"""CLIP: unit embeddings, gradients to pixels, rows that depend on their image alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.models.clip import ClipModel, ClipScorer, build_clip
from casl_bench.models.model_files import write_model

WORDS = ["a", "face", "happy", "hat", "with"]
TEXT = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
VISION = {
    "conv": {"layers": [1, 1, 1, 1], "width": 4, "head_width": 32, "image_size": 64},
    "vit": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 64},
}


@pytest.fixture(params=sorted(VISION))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config = {"embed_dim": 8, "vision": VISION[request.param], "text": TEXT, "words": WORDS}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_clip(config)
    # A fresh open_clip ResNet ends every block in zeros, which would make all images alike.
    for name, value in network.state_dict().items():
        if name.endswith("bn3.weight"):
            value.fill_(1.0)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    write_model(tmp_path / "clip", tensors, {"name": "tiny", "config": config})
    return tmp_path / "clip"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(18, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_embeddings_are_unit_and_rows_independent(folder: Path, images: Tensor) -> None:
    clip = ClipModel.load(folder)
    whole = clip.encode_image(images)
    assert torch.allclose(whole.norm(dim=1), torch.ones(18), atol=1e-5)
    for n in (1, 5, 16):
        assert torch.equal(clip.encode_image(images[:n]), whole[:n])
    assert not torch.allclose(whole[0], whole[1])


def test_gradient_reaches_the_pixels_and_not_the_weights(folder: Path, images: Tensor) -> None:
    clip = ClipModel.load(folder)
    x = images[:3].clone().requires_grad_()
    out = clip.encode_image(x)
    assert torch.allclose(out.detach(), clip.encode_image(images[:3]), atol=1e-5)
    out[:, 0].sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in clip._network.parameters())


def test_text_is_cached_and_directions_are_unit_and_antisymmetric(folder: Path) -> None:
    clip = ClipModel.load(folder)
    first = clip.encode_text(["a face", "a happy face"])
    assert torch.equal(clip.encode_text(["a happy face"])[0], first[1])
    there = clip.text_direction("a face", "a happy face")
    assert float(there.norm()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(there, -clip.text_direction("a happy face", "a face"))
    assert clip.logit_scale > 0


def test_equal_prompts_have_no_direction(folder: Path) -> None:
    with pytest.raises(InputError, match="do not differ"):
        ClipModel.load(folder).text_direction("a face", "a face")


@pytest.mark.parametrize("shape", [(0, 3, 64, 64), (2, 1, 64, 64), (3, 64, 64)])
def test_what_is_no_batch_of_images_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="not \\[n, 3, H, W\\]"):
        ClipModel.load(folder).encode_image(torch.zeros(shape))


def test_other_sizes_are_resized(folder: Path, images: Tensor) -> None:
    clip = ClipModel.load(folder)
    large = torch.nn.functional.interpolate(images[:2], size=(128, 128), mode="nearest")
    assert clip.encode_image(large).shape == (2, 8)


def test_loading_leaves_the_global_random_state(folder: Path) -> None:
    before = torch.get_rng_state()
    ClipModel.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InvalidBenchmarkError, match="truncated"):
        ClipModel.load(folder)


def test_scorer_measures_along_the_text(folder: Path) -> None:
    scorer = ClipScorer.load(folder)
    direction = scorer.clip.text_direction("a face", "a happy face")
    original = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator()), dim=1)
    edited = torch.stack([original, original + 0.3 * direction, original - 0.2 * direction])
    got = scorer.direction_similarity(original, edited, "a face", "a happy face")
    assert torch.equal(got[0], torch.zeros(4))
    assert torch.allclose(got[1], torch.ones(4), atol=1e-5)
    assert torch.allclose(got[2], -torch.ones(4), atol=1e-5)
    with pytest.raises(InputError):
        scorer.direction_similarity(original, edited[:, :2], "a face", "a happy face")
