"""The toy domain is deterministic, keeps to itself and has working parts."""

import pytest
import torch

from casl_bench.conformance.toy_domain import ATTRIBUTES, ToyShapes, register_toy_domain, toy_domain
from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS
from casl_bench.models.model_files import hash_tensors


def test_two_domains_are_equal_but_share_no_network():
    one, two = toy_domain(), toy_domain()
    assert one.backbone.weights_hash == two.backbone.weights_hash
    assert one.scorer_hashes == two.scorer_hashes
    assert len(set(one.scorer_hashes.values())) == 5
    one.backbone.unet.conv_in.weight.zero_()
    assert not torch.equal(one.backbone.unet.conv_in.weight, two.backbone.unet.conv_in.weight)


def test_making_a_domain_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    toy_domain()
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_known_only_once_registered(monkeypatch):
    for registry in (DATASETS, DOMAINS):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    with pytest.raises(UsageError):
        DOMAINS.factory("toy_shapes")
    register_toy_domain()
    assert DOMAINS.create("toy_shapes", "cpu").dataset.card == DATASETS.create("toy_shapes").card


def test_scorers_take_its_images():
    domain = toy_domain()
    pixels = domain.dataset.load("test", 3).pixels
    flipped = domain.dataset.oracle(domain.dataset.load("test", 3).image_ids, "red")
    for classifier in domain.classifiers:
        assert classifier.logits(pixels).shape == (3, len(ATTRIBUTES))
        assert not torch.equal(classifier.logits(pixels), classifier.logits(flipped))
    original, edited = domain.score_clip.embed(pixels), domain.score_clip.embed(flipped)
    concept = domain.dataset.card.concepts[0]
    similarity = domain.score_clip.direction_similarity(
        original, edited, concept.source_prompt, concept.target_prompt
    )
    assert similarity.shape == (3,)
    assert (domain.embedder.perceptual_distance(pixels, flipped) > 0).all()
    assert (domain.embedder.perceptual_distance(pixels, pixels) == 0).all()
    target, others = domain.factors.factor_change(flipped, pixels, "red")
    assert (target.abs() > 1.8).all() and (others < 0.1).all()


def test_labels_are_what_is_drawn():
    batch = ToyShapes().load("train", 64)
    bright, red, striped = (batch.attributes[:, i] for i in range(3))
    corner = batch.pixels[:, 0, 0, 0]
    assert torch.equal(corner > 0, bright)
    # The square is always over (6, 6), and the stripe never is.
    assert torch.equal(batch.pixels[:, 0, 6, 6] == torch.tensor(0.9), red)
    assert torch.equal(batch.pixels[:, 0, -2, 0] == torch.tensor(0.9), striped)
    assert 16 < int(red.sum()) < 48


def test_pictures_do_not_depend_on_how_they_are_asked_for():
    pixels = ToyShapes().load("train", 8).pixels
    assert hash_tensors({"x": ToyShapes().load("train", 3).pixels}) == hash_tensors(
        {"x": pixels[:3]}
    )
