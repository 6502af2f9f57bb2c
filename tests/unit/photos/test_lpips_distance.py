"""LPIPS: zero for equal images, symmetric, and built from local files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import AlexNet

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.models.scorers import Similarity
from casl_bench.photos.published_weights import ALEXNET_FILE
from casl_bench.photos.scorers.similarity import LpipsDistance, PhotoSimilarity

pytest.importorskip("lpips", reason="LPIPS comes with the extra 'real'")


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under torchvision's names; of the class layers only one that is dropped."""
    with torch.random.fork_rng(), torch.device("meta"):
        shapes = {k: v.shape for k, v in AlexNet().state_dict().items() if "features" in k}
    draw = torch.Generator().manual_seed(2)
    weights = {k: torch.randn(shape, generator=draw) * 0.05 for k, shape in shapes.items()}
    path = tmp_path_factory.mktemp("alexnet") / ALEXNET_FILE
    torch.save({**weights, "classifier.1.bias": torch.zeros(4096)}, path)
    return path


@pytest.fixture(scope="module")
def lpips(alexnet: Path) -> LpipsDistance:
    return LpipsDistance.load(alexnet)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(17, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_zero_for_equal_images_symmetric_and_rows_independent(
    lpips: LpipsDistance, images: Tensor
) -> None:
    assert torch.equal(lpips.distance(images, images), torch.zeros(17))
    other = images.flip(3)
    whole = lpips.distance(images, other)
    assert (whole > 0).all() and whole.dtype == torch.float32
    assert torch.equal(lpips.distance(other, images), whole)
    for n in (1, 16):
        assert torch.equal(lpips.distance(images[:n], other[:n]), whole[:n])


def test_more_spoilt_is_further(lpips: LpipsDistance, images: Tensor) -> None:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    smooth = images * 0.3
    near, far = (lpips.distance(smooth, smooth + s * noise) for s in (0.05, 0.4))
    assert (near < far).all()


def test_small_images_are_enlarged_and_pixels_are_clamped(
    lpips: LpipsDistance, images: Tensor
) -> None:
    small, large = images[:2, :, :16, :24], images[:2].repeat(1, 1, 2, 2)
    assert (lpips.distance(small, small.flip(3)) > 0).all()
    assert (lpips.distance(large, large.flip(3)) > 0).all()
    beyond = lpips.distance(images * 9, images)
    assert torch.equal(beyond, lpips.distance((images * 9).clamp(-1, 1), images))


def test_loading_is_silent_and_leaves_the_global_random_state(
    alexnet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    LpipsDistance.load(alexnet)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


def test_heads_and_trunk_are_those_of_the_files(lpips: LpipsDistance, alexnet: Path) -> None:
    state, trunk = lpips._network.state_dict(), torch.load(alexnet, weights_only=True)
    assert torch.equal(state["net.slice2.3.weight"], trunk["features.3.weight"])
    assert torch.equal(state["net.slice5.10.bias"], trunk["features.10.bias"])
    # Learned heads are not negative; random ones would be.
    assert all((state[f"lin{k}.model.1.weight"] >= 0).all() for k in range(5))


def test_shapes_that_do_not_fit_are_refused(lpips: LpipsDistance, images: Tensor) -> None:
    for a, b in ((images, images[:2]), (images[:, :1], images[:, :1]), (images[:0], images[:0])):
        with pytest.raises(InputError, match="lpips_alex"):
            lpips.distance(a, b)


def test_damaged_weights_are_refused(alexnet: Path, tmp_path: Path) -> None:
    good = torch.load(alexnet, weights_only=True)
    bad = {
        "missing features.3.bias": {k: v for k, v in good.items() if k != "features.3.bias"},
        "features.3.bias holds NaN": {
            **good,
            "features.3.bias": good["features.3.bias"] * torch.nan,
        },
        "unexpected head": {**good, "head": torch.zeros(1)},
        "not the ImageNet weights: 365 classes, not 1,000": {
            **good,
            "classifier.6.weight": torch.zeros(365, 4),
        },
    }
    path = tmp_path / ALEXNET_FILE
    for match, weights in bad.items():
        torch.save(weights, path)
        with pytest.raises(InvalidBenchmarkError, match=match):
            LpipsDistance.load(path)
    path.write_bytes(alexnet.read_bytes()[:-50])
    with pytest.raises(InvalidBenchmarkError, match="unreadable") as caught:
        LpipsDistance.load(path)
    assert "\n" not in str(caught.value)


def test_without_faces_nobody_tells_identity(lpips: LpipsDistance, images: Tensor) -> None:
    scorer = PhotoSimilarity(lpips)
    assert isinstance(scorer, Similarity)
    assert (
        scorer.identity_similarity(images, images) is None and scorer.faces_missed(images) is None
    )
    assert torch.equal(scorer.perceptual_distance(images, images), torch.zeros(17))
    assert scorer.info == lpips.info
