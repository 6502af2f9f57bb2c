"""Zero-shot logits: the zero is the assumed share, the unit a spread, the order the raw one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.core.errors import InputError, UsageError
from casl_bench.models.clip import ClipModel
from casl_bench.models.scorers import AttributeScorer
from casl_bench.photos.scorers.zero_shot import ZeroShotClassifier

PAIRS = {"smiling": ("a face", "a smiling face"), "beard": ("a person", "a person with beards")}


class SmallClip(nn.Module):
    """Random linear maps: pixels, and counts of letters."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.image = nn.Parameter(torch.randn(3 * 8 * 8, 6, generator=draw))
        self.text = nn.Parameter(torch.randn(128, 6, generator=draw))
        self.logit_scale = nn.Parameter(torch.tensor(4.0))

    def encode_image(self, pixels: Tensor, normalize: bool) -> Tensor:
        return F.normalize(pixels.flatten(1) @ self.image, dim=1)

    def encode_text(self, tokens: Tensor, normalize: bool) -> Tensor:
        return F.normalize(tokens.float() @ self.text, dim=1)


def _letters(texts: list[str]) -> Tensor:
    return torch.stack(
        [torch.bincount(torch.tensor(list(t.encode())), minlength=128) for t in texts]
    )


@pytest.fixture
def clip() -> ClipModel:
    half = (0.5, 0.5, 0.5)
    return ClipModel("small", SmallClip(), _letters, "c" * 64, 8, half, half)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("prior", [0.1, 0.2, 0.5])
def test_the_share_of_training_images_above_zero_is_the_prior(
    clip: ClipModel, images: Tensor, prior: float
) -> None:
    scorer = ZeroShotClassifier.calibrated(clip, "small", PAIRS, images, prior=prior)
    logits = scorer.logits(images)
    share = (logits > 0).float().mean(0)
    assert torch.allclose(share, torch.full((2,), prior), atol=0.011)
    assert torch.allclose(logits.std(0, correction=0), torch.ones(2), atol=1e-4)


def test_logits_grow_with_the_cosine_of_the_target(clip: ClipModel, images: Tensor) -> None:
    scorer = ZeroShotClassifier.calibrated(clip, "small", PAIRS, images)
    logits, seen = scorer.logits(images), clip.encode_image(images)
    for column, (source, target) in enumerate(PAIRS.values()):
        s, t = clip.encode_text([source, target])
        raw = clip.logit_scale * (seen @ t - seen @ s)
        assert torch.equal(raw.argsort(), logits[:, column].argsort())
        units = (raw - raw.mean()) / raw.std(correction=0)
        assert torch.allclose(logits[:, column] - logits[:, column].mean(), units, atol=1e-3)


def test_a_row_depends_on_its_image_alone(clip: ClipModel, images: Tensor) -> None:
    scorer = ZeroShotClassifier.calibrated(clip, "small", PAIRS, images)
    whole = scorer.logits(images)
    for n in (1, 3, 16, 17):
        assert torch.equal(scorer.logits(images[:n]), whole[:n])
    assert torch.equal(scorer.logits(images * 9), scorer.logits((images * 9).clamp(-1, 1)))
    assert scorer.logits(images[:0]).shape == (0, 2)


def test_its_identity_says_what_it_is(clip: ClipModel, images: Tensor) -> None:
    scorer = ZeroShotClassifier.calibrated(clip, "small", PAIRS, images)
    assert scorer.info.name == "zero_shot:small" and scorer.attributes == tuple(PAIRS)
    assert isinstance(scorer, AttributeScorer)
    again = ZeroShotClassifier.calibrated(clip, "small", PAIRS, images)
    other = ZeroShotClassifier.calibrated(clip, "small", PAIRS, images, prior=0.3)
    assert again.info == scorer.info
    assert other.info.weights_hash != scorer.info.weights_hash


def test_texts_that_tell_nothing_apart_are_named(clip: ClipModel, images: Tensor) -> None:
    pairs = {**PAIRS, "pale": ("pale face", "face pale")}  # the same letters
    with pytest.raises(UsageError, match=r"for pale \(zero_shot:small\)"):
        ZeroShotClassifier.calibrated(clip, "small", pairs, images)


def test_what_cannot_calibrate_is_refused(clip: ClipModel, images: Tensor) -> None:
    with pytest.raises(InputError, match="two images"):
        ZeroShotClassifier.calibrated(clip, "small", PAIRS, images[:1])
    with pytest.raises(InputError, match="prior of 1"):
        ZeroShotClassifier.calibrated(clip, "small", PAIRS, images, prior=1.0)
