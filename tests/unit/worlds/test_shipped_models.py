"""The shipped models of rendered_faces: small, as their cards say, and good on unseen pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import casl_bench.worlds
from casl_bench.backbones.clip_model import ClipModel
from casl_bench.images.dataset import ImageBatch
from casl_bench.images.rendered_faces import ATTRIBUTES
from casl_bench.images.rendered_faces_dataset import CONCEPTS, RenderedFaces
from casl_bench.scorers.attribute_classifier import AttributeClassifier
from casl_bench.scorers.clip_scorer import ClipScorer
from casl_bench.scorers.embedder import RenderEmbedder
from casl_bench.worlds.degrade import degrade
from casl_bench.worlds.train_common import card_text

ASSETS = Path(str(casl_bench.worlds.__file__)).parent / "assets" / "rendered_faces"
MEGABYTES = {
    "guide_clip": 2.2,
    "score_clip": 2.0,
    "classifier_plain": 0.5,
    "classifier_depthwise": 0.5,
    "render_embedder": 0.5,
}
CLASSIFIERS = ("classifier_plain", "classifier_depthwise")


@pytest.fixture(scope="module")
def faces() -> ImageBatch:
    return RenderedFaces().load("test", 32)


@pytest.fixture(scope="module")
def flips(faces: ImageBatch) -> dict[str, Tensor]:
    return {name: RenderedFaces().oracle(faces.image_ids, name) for name in ATTRIBUTES}


@pytest.mark.parametrize("name", sorted(MEGABYTES))
def test_small_and_described(name: str) -> None:
    folder = ASSETS / name
    assert (folder / "model.safetensors").stat().st_size <= MEGABYTES[name] * 1e6
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["name"] == name
    assert (folder / "README.md").read_text(encoding="utf-8") == card_text(card)
    assert len((folder / "curve.csv").read_text(encoding="utf-8").splitlines()) > 5


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_read_clean_and_spoilt_pictures(name: str, faces: ImageBatch) -> None:
    classifier = AttributeClassifier.load(ASSETS / name)
    assert classifier.attributes == ATTRIBUTES and faces.attributes is not None
    spoilt = degrade(faces.pixels, torch.Generator().manual_seed(0), clean=0.0)
    for pixels in (faces.pixels, spoilt):
        right = (classifier.logits(pixels) > 0) == faces.attributes
        assert float(right.float().mean()) >= 0.98


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_follow_the_oracle(
    name: str, faces: ImageBatch, flips: dict[str, Tensor]
) -> None:
    classifier = AttributeClassifier.load(ASSETS / name)
    before = classifier.logits(faces.pixels)
    assert faces.attributes is not None
    for k, attribute in enumerate(ATTRIBUTES):
        change = classifier.logits(flips[attribute]) - before
        turned_off = faces.attributes[:, k]
        assert bool(((change[:, k] < 0) == turned_off).all())
        others = change.abs().mean(0)
        assert float(others[[j for j in range(8) if j != k]].max()) < 0.35 * float(others[k])


def test_a_half_blended_edit_scores_between(faces: ImageBatch, flips: dict[str, Tensor]) -> None:
    classifier = AttributeClassifier.load(ASSETS / "classifier_plain")
    k = ATTRIBUTES.index("eyeglasses")
    ends = [classifier.logits(x)[:, k] for x in (faces.pixels, flips["eyeglasses"])]
    half = classifier.logits((faces.pixels + flips["eyeglasses"]) / 2)[:, k]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    assert bool(((half > low) & (half < high)).all())
    assert float(half.abs().mean()) < 0.5 * float(torch.stack(ends).abs().mean())


@pytest.mark.parametrize("name", ["guide_clip", "score_clip"])
def test_clip_directions_point_along_oracle_edits(
    name: str, faces: ImageBatch, flips: dict[str, Tensor]
) -> None:
    scorer = ClipScorer.load(ASSETS / name)
    before = scorer.embed(faces.pixels)
    assert faces.attributes is not None
    for k, concept in enumerate(CONCEPTS):
        after = scorer.embed(flips[concept.attribute])
        sign = 1 - 2 * faces.attributes[:, k].float()
        cosines = torch.stack(
            [
                scorer.direction_similarity(before, after, c.source_prompt, c.target_prompt)
                for c in CONCEPTS
            ]
        )
        assert float((cosines[k] * sign).mean()) >= 0.8
        cosines[k] = 0
        assert float((cosines * sign).mean(1).abs().max()) <= 0.5


@pytest.mark.parametrize("name", ["guide_clip", "score_clip"])
def test_clip_tells_every_attribute_from_its_prompts(name: str, faces: ImageBatch) -> None:
    clip = ClipModel.load(ASSETS / name)
    seen = clip.encode_image(faces.pixels)
    yes = clip.encode_text([c.target_prompt for c in CONCEPTS])
    no = clip.encode_text([c.source_prompt for c in CONCEPTS])
    assert faces.attributes is not None
    right = ((seen @ (yes - no).T > 0) == faces.attributes).float().mean(0)
    assert float(right.min()) >= 0.95


def test_guide_and_scorer_are_different_networks() -> None:
    cards = [
        json.loads((ASSETS / name / "card.json").read_text(encoding="utf-8"))
        for name in ("guide_clip", "score_clip")
    ]
    assert cards[0]["sha256"] != cards[1]["sha256"]
    assert cards[0]["config"]["vision"] != cards[1]["config"]["vision"]
    for setting in ("seed", "manner"):
        assert cards[0]["training"]["config"][setting] != cards[1]["training"]["config"][setting]


def test_embedder_knows_people_and_degrees_of_change(
    faces: ImageBatch, flips: dict[str, Tensor]
) -> None:
    embedder = RenderEmbedder.load(ASSETS / "render_embedder")
    same = embedder.identity_similarity(faces.pixels, flips["hat"])
    other = embedder.identity_similarity(faces.pixels, faces.pixels.roll(1, 0))
    assert float(same.min()) > float(other.max())
    steps = [faces.pixels.lerp(faces.pixels.roll(1, 0), w) for w in (0.1, 0.3, 1.0)]
    apart = torch.stack([embedder.perceptual_distance(faces.pixels, x) for x in steps])
    assert bool((apart[1:] > apart[:-1]).all())
