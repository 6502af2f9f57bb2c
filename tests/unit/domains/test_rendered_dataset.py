"""Rendered data sets: images belong to their ids, splits share nothing, one factor is flipped."""

from __future__ import annotations

import pytest
import torch

from casl_bench.core.errors import InputError, UsageError
from casl_bench.domains.dataset import DATASETS, Dataset, SupportsOracle
from casl_bench.domains.rendered import RENDERED, RenderedDomain, rendered_domain
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.runs.names import load_registries

load_registries()


@pytest.fixture(scope="module", params=RENDERED.values(), ids=lambda d: d.name)
def domain(request: pytest.FixtureRequest) -> RenderedDomain:
    found: RenderedDomain = request.param
    return found


@pytest.fixture(scope="module")
def dataset(domain: RenderedDomain) -> RenderedDataset:
    return RenderedDataset(domain.drawing)


def test_registered_with_a_card(domain: RenderedDomain, dataset: RenderedDataset) -> None:
    card = DATASETS.create(domain.name).card
    assert card == RenderedDataset(domain.drawing, card.not_carried).card
    assert isinstance(dataset, Dataset) and isinstance(dataset, SupportsOracle)
    drawing = domain.drawing
    assert len(drawing.concepts) == 8 and len(drawing.tuning_concepts) == 2
    concepts = drawing.concepts + drawing.tuning_concepts
    assert [c.attribute for c in concepts] == list(drawing.attributes)
    assert dataset.card.concepts == drawing.concepts, "no ranking uses what settings are tuned on"


def test_a_prefix_is_the_same_images(dataset: RenderedDataset) -> None:
    few, more = dataset.load("test", 3), dataset.load("test", 5)
    assert few.image_ids == ("test-000000", "test-000001", "test-000002") == more.image_ids[:3]
    assert torch.equal(few.pixels, more.pixels[:3])
    assert few.pixels.shape == (3, 3, 64, 64) and few.pixels.dtype == torch.float32
    assert float(few.pixels.min()) >= -1 and float(few.pixels.max()) <= 1
    assert few.attributes is not None and few.attributes.dtype == torch.bool


def test_splits_share_no_image(dataset: RenderedDataset) -> None:
    batches = [dataset.load(s, 2).pixels for s in ("train", "validation", "test")]
    assert len(torch.unique(torch.cat(batches).flatten(1), dim=0)) == 6


def test_oracle_changes_enough_of_every_image_to_be_seen(
    domain: RenderedDomain, dataset: RenderedDataset
) -> None:
    batch = dataset.load("validation", 8)
    for attribute in domain.drawing.attributes:
        flipped = dataset.oracle(batch.image_ids, attribute)
        # 20 grey levels of 255 are seen at a glance; 2 % of an image are 82 pixels.
        changed = ((flipped - batch.pixels).abs() > 20 / 127.5).any(1).flatten(1).float().mean(1)
        assert (changed > 0.02).all(), (attribute, changed)
        assert torch.equal(dataset.oracle(batch.image_ids, attribute), flipped)


def test_oracle_takes_any_order_and_none(domain: RenderedDomain, dataset: RenderedDataset) -> None:
    attribute = domain.drawing.attributes[-1]
    ids = ["test-000003", "train-000000"]
    both = dataset.oracle(ids, attribute)
    assert torch.equal(both.flip(0), dataset.oracle(ids[::-1], attribute))
    assert dataset.oracle([], attribute).shape == (0, 3, 64, 64)
    assert len(dataset.load("test", 0)) == 0


def test_wrong_names_are_refused() -> None:
    faces = RenderedDataset(RENDERED["rendered_faces"].drawing)
    with pytest.raises(UsageError, match="did you mean 'hat'"):
        faces.oracle(["test-000000"], "hatt")
    with pytest.raises(InputError, match="test-12x"):
        faces.oracle(["test-12x"], "hat")
    with pytest.raises(UsageError, match="validation"):
        faces.load("valid", 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'rendered_faces'"):
        rendered_domain("rendered_face")
