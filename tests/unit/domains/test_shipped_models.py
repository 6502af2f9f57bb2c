"""The shipped models of every domain: small, as their cards say, and good on unseen pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from casl_bench.diffusion.inversion import invert
from casl_bench.domains.dataset import ImageBatch
from casl_bench.domains.rendered import ASSETS, CLASSIFIERS, RENDERED, RenderedDomain
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.metrics.image_similarity import psnr
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel, ClipScorer
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.runs.suites import suite
from casl_bench.training.degrade import degrade
from casl_bench.training.trainer import card_text

MEGABYTES = {
    "guide_clip": 0.9,
    "score_clip": 0.6,
    "classifier_plain": 0.4,
    "classifier_depthwise": 0.4,
    "classifier_residual": 0.4,
    "classifier_tuning": 0.3,
    "factor_regressor": 0.4,
    "render_embedder": 0.4,
}


@pytest.fixture(scope="module", params=RENDERED.values(), ids=lambda d: d.name)
def domain(request: pytest.FixtureRequest) -> RenderedDomain:
    found: RenderedDomain = request.param
    return found


@pytest.fixture(scope="module")
def models(domain: RenderedDomain) -> Path:
    return ASSETS / domain.name


@pytest.fixture(scope="module")
def pictures(domain: RenderedDomain) -> ImageBatch:
    return RenderedDataset(domain.drawing).load("test", 32)


@pytest.fixture(scope="module")
def flips(domain: RenderedDomain, pictures: ImageBatch) -> dict[str, Tensor]:
    dataset = RenderedDataset(domain.drawing)
    return {name: dataset.oracle(pictures.image_ids, name) for name in domain.drawing.attributes}


@pytest.mark.parametrize("name", sorted(MEGABYTES))
def test_small_and_described(name: str, models: Path) -> None:
    folder = models / name
    assert (folder / "model.safetensors").stat().st_size <= MEGABYTES[name] * 1e6
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["name"] == name
    assert (folder / "README.md").read_text(encoding="utf-8") == card_text(card)
    assert len((folder / "curve.csv").read_text(encoding="utf-8").splitlines()) > 5


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_read_clean_and_spoilt_pictures(
    name: str, domain: RenderedDomain, models: Path, pictures: ImageBatch
) -> None:
    classifier = AttributeClassifier.load(models / name)
    assert classifier.attributes == domain.drawing.attributes and pictures.attributes is not None
    spoilt = degrade(pictures.pixels, torch.Generator().manual_seed(0), clean=0.0)
    for pixels in (pictures.pixels, spoilt):
        right = (classifier.logits(pixels) > 0) == pictures.attributes
        assert float(right.float().mean()) >= 0.98


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_follow_the_oracle(
    name: str, domain: RenderedDomain, models: Path, pictures: ImageBatch, flips: dict[str, Tensor]
) -> None:
    classifier = AttributeClassifier.load(models / name)
    before = classifier.logits(pictures.pixels)
    assert pictures.attributes is not None
    for k, attribute in enumerate(domain.drawing.attributes):
        change = classifier.logits(flips[attribute]) - before
        turned_off = pictures.attributes[:, k]
        assert bool(((change[:, k] < 0) == turned_off).all())
        others = change.abs().mean(0)
        assert float(others[[j for j in range(len(others)) if j != k]].max()) < 0.35 * float(
            others[k]
        )


def test_a_half_blended_edit_scores_between(
    domain: RenderedDomain, models: Path, pictures: ImageBatch, flips: dict[str, Tensor]
) -> None:
    classifier = AttributeClassifier.load(models / "classifier_plain")
    k = 0
    ends = [
        classifier.logits(x)[:, k] for x in (pictures.pixels, flips[domain.drawing.attributes[0]])
    ]
    half = classifier.logits((pictures.pixels + flips[domain.drawing.attributes[0]]) / 2)[:, k]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    assert bool(((half > low) & (half < high)).all())
    assert float(half.abs().mean()) < 0.5 * float(torch.stack(ends).abs().mean())


@pytest.mark.parametrize("name", ["guide_clip", "score_clip"])
def test_clip_directions_point_along_oracle_edits(
    name: str, domain: RenderedDomain, models: Path, pictures: ImageBatch, flips: dict[str, Tensor]
) -> None:
    scorer = ClipScorer.load(models / name)
    before = scorer.embed(pictures.pixels)
    assert pictures.attributes is not None
    for k, concept in enumerate(domain.drawing.concepts):
        after = scorer.embed(flips[concept.attribute])
        sign = 1 - 2 * pictures.attributes[:, k].float()
        cosines = torch.stack(
            [
                scorer.direction_similarity(before, after, c.source_prompt, c.target_prompt)
                for c in domain.drawing.concepts
            ]
        )
        assert float((cosines[k] * sign).mean()) >= 0.8
        cosines[k] = 0
        assert float((cosines * sign).mean(1).abs().max()) <= 0.5


@pytest.mark.parametrize("name", ["guide_clip", "score_clip"])
def test_clip_tells_every_attribute_from_its_prompts(
    name: str, domain: RenderedDomain, models: Path, pictures: ImageBatch
) -> None:
    clip = ClipModel.load(models / name)
    seen = clip.encode_image(pictures.pixels)
    yes = clip.encode_text([c.target_prompt for c in domain.drawing.concepts])
    no = clip.encode_text([c.source_prompt for c in domain.drawing.concepts])
    assert pictures.attributes is not None
    columns = [domain.drawing.attributes.index(c.attribute) for c in domain.drawing.concepts]
    right = ((seen @ (yes - no).T > 0) == pictures.attributes[:, columns]).float().mean(0)
    assert float(right.min()) >= 0.95


def test_guide_and_scorer_are_different_networks(models: Path) -> None:
    cards = [
        json.loads((models / name / "card.json").read_text(encoding="utf-8"))
        for name in ("guide_clip", "score_clip")
    ]
    assert cards[0]["sha256"] != cards[1]["sha256"]
    assert cards[0]["config"]["vision"] != cards[1]["config"]["vision"]
    for setting in ("seed", "manner"):
        assert cards[0]["training"]["config"][setting] != cards[1]["training"]["config"][setting]


def test_embedder_knows_subjects_and_degrees_of_change(
    domain: RenderedDomain, models: Path, pictures: ImageBatch, flips: dict[str, Tensor]
) -> None:
    embedder = RenderEmbedder.load(models / "render_embedder")
    same = embedder.identity_similarity(pictures.pixels, flips[domain.drawing.attributes[-1]])
    other = embedder.identity_similarity(pictures.pixels, pictures.pixels.roll(1, 0))
    assert float(same.min()) > float(other.max())
    steps = [pictures.pixels.lerp(pictures.pixels.roll(1, 0), w) for w in (0.1, 0.3, 1.0)]
    apart = torch.stack([embedder.perceptual_distance(pictures.pixels, x) for x in steps])
    assert bool((apart[1:] > apart[:-1]).all())


@pytest.mark.parametrize("name", ["default", "full"])
def test_inversion_comes_back_on_the_walk_of_a_suite(
    name: str, models: Path, pictures: ImageBatch
) -> None:
    backbone, batch, run = (
        Backbone.from_folder(models / "unet"),
        pictures.take(range(4)),
        suite(name),
    )
    timesteps = power_timesteps(run.num_steps, 999, run.timestep_power)
    back = invert(backbone, batch.image_ids, batch.pixels, timesteps, extrapolate=run.extrapolate)
    assert psnr(back.reconstruction.numpy(), batch.pixels.numpy()).mean() > 34
