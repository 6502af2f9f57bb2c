"""The data set: images belong to their ids, splits share nothing, the oracle flips one factor."""

from __future__ import annotations

import pytest
import torch

from casl_bench.core.errors import InputError, UsageError
from casl_bench.images.dataset import DATASETS, Dataset, SupportsOracle
from casl_bench.images.rendered_faces import ATTRIBUTES
from casl_bench.images.rendered_faces_dataset import RenderedFaces


@pytest.fixture(scope="module")
def faces() -> RenderedFaces:
    return RenderedFaces()


def test_registered_with_a_card(faces: RenderedFaces) -> None:
    assert isinstance(DATASETS.create("rendered_faces"), RenderedFaces)
    assert isinstance(faces, Dataset) and isinstance(faces, SupportsOracle)
    assert faces.card.attributes == ATTRIBUTES
    assert [c.attribute for c in faces.card.concepts] == list(ATTRIBUTES)
    assert faces.card.revision == RenderedFaces().card.revision


def test_a_prefix_is_the_same_images(faces: RenderedFaces) -> None:
    few, more = faces.load("test", 3), faces.load("test", 5)
    assert few.image_ids == ("test-000000", "test-000001", "test-000002") == more.image_ids[:3]
    assert torch.equal(few.pixels, more.pixels[:3])
    assert few.pixels.shape == (3, 3, 64, 64) and few.pixels.dtype == torch.float32
    assert float(few.pixels.min()) >= -1 and float(few.pixels.max()) <= 1
    assert few.attributes is not None and few.attributes.dtype == torch.bool


def test_splits_and_seeds_share_no_image(faces: RenderedFaces) -> None:
    batches = [faces.load(s, 2).pixels for s in ("train", "validation", "test")]
    batches.append(RenderedFaces(seed=1).load("train", 2).pixels)
    everything = torch.cat(batches).flatten(1)
    assert len(torch.unique(everything, dim=0)) == 8


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_oracle_changes_the_image_and_not_all_of_it(faces: RenderedFaces, attribute: str) -> None:
    batch = faces.load("validation", 4)
    flipped = faces.oracle(batch.image_ids, attribute)
    changed = (flipped != batch.pixels).any(1).flatten(1).float().mean(1)
    assert ((changed > 0.005) & (changed < 0.7)).all()


def test_oracle_takes_any_order_and_none(faces: RenderedFaces) -> None:
    ids = ["test-000003", "train-000000"]
    both = faces.oracle(ids, "hat")
    assert torch.equal(both.flip(0), faces.oracle(ids[::-1], "hat"))
    assert faces.oracle([], "hat").shape == (0, 3, 64, 64)
    assert len(faces.load("test", 0)) == 0


def test_wrong_names_are_refused(faces: RenderedFaces) -> None:
    with pytest.raises(UsageError, match="did you mean 'hat'"):
        faces.oracle(["test-000000"], "hatt")
    with pytest.raises(InputError, match="test-12x"):
        faces.oracle(["test-12x"], "hat")
    with pytest.raises(UsageError, match="validation"):
        faces.load("valid", 1)  # type: ignore[arg-type]
