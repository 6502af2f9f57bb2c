"""Face identity: one for equal images, the original's crop for both, missed faces counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.photos.published_weights import VGGFACE2_FILE
from casl_bench.photos.scorers.similarity import (
    FaceIdentity,
    LpipsDistance,
    PhotoSimilarity,
    centre_box,
    cut,
)

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"


class Colours(nn.Module):
    """An embedding of the crop: its mean colour, and what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, faces: Tensor) -> Tensor:
        self.seen.append(faces)
        return faces.mean((2, 3)) + torch.tensor([2.0, 0, 0])


class Finder(nn.Module):
    """Finds a face in an image whose upper left pixel is white."""

    def __init__(self, box: tuple[float, ...] = (3.2, -4.0, 90.0, 20.7)) -> None:
        super().__init__()
        self.box, self.calls = box, 0

    def detect(self, image: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        self.calls += 1
        found = [[*self.box]] if image[0, 0, 0] == 255 else None
        return found, None


@pytest.fixture
def images() -> Tensor:
    pixels = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pixels[:, :, 0, 0] = 1
    return pixels


def test_one_for_equal_images_and_rows_independent(images: Tensor) -> None:
    scorer = FaceIdentity(Colours(), Finder())
    same = scorer.identity_similarity(original=images, edited=images)
    assert torch.allclose(same, torch.ones(9), atol=1e-6)
    other = images.roll(1, 0)
    whole = scorer.identity_similarity(original=images, edited=other)
    assert (whole < 1).all()
    for n in (1, 8):
        part = scorer.identity_similarity(original=images[:n], edited=other[:n])
        assert torch.equal(part, whole[:n])


def test_both_images_are_cut_where_the_original_shows_its_face(images: Tensor) -> None:
    network, finder = Colours(), Finder()
    scorer = FaceIdentity(network, finder)
    edited = -images  # its own upper left pixel is black, so no face is found in it
    scorer.identity_similarity(original=images[:1], edited=edited[:1])
    before, after = network.seen
    box = (3, 0, 32, 20)
    assert torch.equal(before[0], cut(images[0], box))
    assert torch.equal(after[0], cut(edited[0], box))
    assert scorer.faces_missed(images[:1]) == 0
    scorer.identity_similarity(original=images[:1], edited=images[:1] * 0.5)
    assert finder.calls == 1


def test_missed_faces_are_those_of_the_images_asked_about_and_the_middle_is_taken(
    images: Tensor,
) -> None:
    network = Colours()
    scorer = FaceIdentity(network, Finder())
    images[:4, :, 0, 0] = -1
    for strength in (0.5, 1.0):
        scorer.identity_similarity(original=images, edited=images * strength)
    assert (scorer.faces_missed(images), scorer.faces_missed(images[4:])) == (4, 0)
    assert torch.equal(network.seen[0][0], cut(images[0], centre_box(32, 32)))
    outside = FaceIdentity(Colours(), Finder((40.0, 3.0, 50.0, 9.0)))
    outside.identity_similarity(original=images[5:], edited=images[5:])
    assert outside.faces_missed(images[5:]) == 4


def test_a_crop_is_standardised_as_the_network_expects() -> None:
    grey = torch.full((3, 20, 30), 2 * 100 / 255 - 1)  # value 100 of 255
    face = cut(grey, centre_box(20, 30))
    assert face.shape == (3, 160, 160)
    assert torch.allclose(face, torch.tensor((100 - 127.5) / 128), atol=1e-6)
    assert centre_box(20, 30) == (8, 3, 22, 17)


def test_shapes_that_do_not_fit_are_refused(images: Tensor) -> None:
    scorer = FaceIdentity(Colours(), Finder())
    for a, b in ((images, images[:2]), (images[:, :1], images[:, :1]), (images[:0], images[:0])):
        with pytest.raises(InputError, match="vggface2"):
            scorer.identity_similarity(original=a, edited=b)


def test_the_pair_hands_the_original_to_the_finder(images: Tensor) -> None:
    class Zero(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    scorer = PhotoSimilarity(LpipsDistance(Zero()), FaceIdentity(Colours(), Finder()))
    edited = -images
    assert scorer.identity_similarity(edited, images) is not None
    assert scorer.faces_missed(images) == 0 and scorer.info.name == "lpips_alex+vggface2"
    assert scorer.faces_missed(edited) == 9


@pytest.fixture(scope="module")
def vggface2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, with class outputs as the published file has them."""
    facenet = pytest.importorskip("facenet_pytorch", reason="comes with the extra 'real'")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = facenet.InceptionResnetV1()
    path = tmp_path_factory.mktemp("vggface2") / VGGFACE2_FILE
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save({**state, "logits.weight": torch.zeros(8631, 512).half()}, path)
    return path


def test_the_published_networks_load_from_files(vggface2: Path) -> None:
    before = torch.get_rng_state()
    scorer = FaceIdentity.load(vggface2)
    assert torch.equal(torch.get_rng_state(), before)
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    same = scorer.identity_similarity(original=noise, edited=noise)
    assert torch.allclose(same, torch.ones(2), atol=1e-5)
    assert scorer.faces_missed(noise) == 2


def test_the_finder_finds_real_faces() -> None:
    facenet = pytest.importorskip("facenet_pytorch", reason="comes with the extra 'real'")
    photos = GOLDEN / "photos" / "celeba_hq"
    if not (files := sorted(photos.glob("*.jpg"))):
        pytest.skip(f"no photographs in {photos}")
    pixels = [np.asarray(Image.open(f).convert("RGB").resize((128, 128))) for f in files[:3]]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    scorer = FaceIdentity(Colours(), facenet.MTCNN())
    assert scorer.faces_missed(images) == 0


def test_faces_of_another_data_set_are_refused(vggface2: Path, tmp_path: Path) -> None:
    state = torch.load(vggface2, weights_only=True)
    path = tmp_path / VGGFACE2_FILE
    torch.save({**state, "logits.weight": torch.zeros(10575, 512).half()}, path)
    with pytest.raises(
        InvalidBenchmarkError, match="not the VGGFace2 weights: 10,575 classes, not 8,631"
    ):
        FaceIdentity.load(path)


def test_damaged_weights_are_refused(vggface2: Path, tmp_path: Path) -> None:
    path = tmp_path / VGGFACE2_FILE
    good = torch.load(vggface2, weights_only=True)
    torch.save({k: v for k, v in good.items() if k != "last_linear.weight"}, path)
    with pytest.raises(InvalidBenchmarkError, match=r"missing last_linear\.weight"):
        FaceIdentity.load(path)
    path.write_bytes(vggface2.read_bytes()[:1000])
    with pytest.raises(InvalidBenchmarkError, match="unreadable") as caught:
        FaceIdentity.load(path)
    assert "\n" not in str(caught.value)
