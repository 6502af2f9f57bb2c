"""The embedder: a distance that is zero for equal images, a similarity that is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.models.embedder import EmbedderNet, RenderEmbedder, feature_distance
from casl_bench.models.model_files import write_model
from casl_bench.models.scorers import ComparesManyEdits, compare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"widths": [4, 8], "embed_dim": 6, "image_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EmbedderNet([4, 8], 6)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    write_model(tmp_path / "e", tensors, {"name": "render_embedder", "config": config})
    return tmp_path / "e"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(18, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_equal_images_are_at_zero_and_others_are_not(folder: Path, images: Tensor) -> None:
    embedder = RenderEmbedder.load(folder)
    assert torch.equal(embedder.perceptual_distance(images, images), torch.zeros(18))
    assert torch.allclose(embedder.identity_similarity(images, images), torch.ones(18), atol=1e-5)
    other = images.roll(1, 0)
    apart = embedder.perceptual_distance(images, other)
    assert ((apart > 0) & (apart <= 1)).all()
    assert (embedder.identity_similarity(images, other) < 1).all()


def test_symmetric_and_rows_independent(folder: Path, images: Tensor) -> None:
    embedder, other = RenderEmbedder.load(folder), images.flip(3)
    for measure in (embedder.perceptual_distance, embedder.identity_similarity):
        whole = measure(images, other)
        assert torch.equal(measure(other, images), whole)
        for n in (1, 7, 17):
            assert torch.equal(measure(images[:n], other[:n]), whole[:n])


def test_all_edits_in_one_go_are_as_one_by_one(folder: Path, images: Tensor) -> None:
    embedder = RenderEmbedder.load(folder)
    edits = torch.stack([images.flip(3), images.roll(1, 0), images])
    distance, cosine = compare(embedder, edits, images)
    single = OneByOne(embedder)
    assert not isinstance(single, ComparesManyEdits) and isinstance(embedder, ComparesManyEdits)
    again = compare(single, edits, images)
    assert again[1] is not None and cosine is not None
    assert torch.equal(distance, again[0]) and torch.equal(cosine, again[1])
    passes = []
    embedder._network.stages[0].register_forward_hook(lambda *_: passes.append(1))
    compare(embedder, edits, images)
    assert len(passes) == 2 * (3 + 1)  # two micro-batches of each edit and of the originals


class OneByOne:
    """The same measures of a scorer that compares images with images alone."""

    def __init__(self, embedder: RenderEmbedder) -> None:
        self.info = embedder.info
        self.perceptual_distance = embedder.perceptual_distance
        self.identity_similarity = embedder.identity_similarity


def test_distance_of_opposite_features_is_one() -> None:
    a, b = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    a[0, 0], b[0, 1] = 1000, 1000
    assert float(feature_distance([a], [b])) == pytest.approx(1, abs=1e-4)
    assert float(feature_distance([a, a], [a, b])) == pytest.approx(0.5, abs=1e-4)


def test_shapes_that_do_not_fit_are_refused(folder: Path, images: Tensor) -> None:
    embedder = RenderEmbedder.load(folder)
    for a, b in ((images, images[:2]), (images[..., :32], images[..., :32])):
        with pytest.raises(InputError, match="render_embedder"):
            embedder.perceptual_distance(a, b)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidBenchmarkError, match="truncated"):
        RenderEmbedder.load(folder)
