"""What all dictionaries of one data set and site are measured on, made once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.metrics.edit_scores import Array
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.scoring import Scorers, from_8_bits, to_8_bits
from casl_bench.sae.sae import ActivationMaps
from casl_bench.sae.sites import MID, SiteMaps
from casl_bench.sae_track.edits import Walk

Labels = NDArray[np.bool_]

_CHANGED = 0.06
"""Of [-1, 1]: a pixel that a flip changes by more belongs to the factor's mask."""


class SiteData:
    """Activations, labels, pairs and scorers of one data set at one site.

    Args:
        artifacts: of the data set.
        site: where dictionaries read and write.
        pair_images: test images, the first ones, that are flipped in every factor.
        edit_images: of these, the first ones, whose codes are changed.
    """

    def __init__(self, artifacts: Artifacts, site: str, pair_images: int, edit_images: int) -> None:
        self.artifacts, self.domain, self.site = artifacts, artifacts.domain, site
        self.pair_images, self.edit_images = pair_images, edit_images
        self.card = self.domain.dataset.card
        self.attributes = self.card.attributes
        self.scorers = Scorers(self.domain)
        train, test = artifacts.train, artifacts.test
        self.train_labels: Labels = artifacts.presence(train).numpy()
        self.test_labels: Labels = artifacts.presence(test).numpy()
        self.flips = artifacts.flipped("test", pair_images)
        if not self.flips.flipped.trajectories:
            raise InvalidBenchmarkError("flipped images are kept without their activations")
        self._flip_maps: ActivationMaps | None = None

    def edit_attributes(self, count: int | None) -> list[int]:
        """Places of the attributes that concepts edit, the first `count` of them."""
        names = dict.fromkeys(c.attribute for c in self.card.concepts)
        return [self.attributes.index(a) for a in list(names)[:count]]

    @cached_property
    def train(self) -> ActivationMaps:
        """Of the training images."""
        return self.artifacts.activations("train", self.site)

    @cached_property
    def test(self) -> ActivationMaps:
        """Of the test images."""
        return self.artifacts.activations("test", self.site)

    @property
    def flipped(self) -> ActivationMaps:
        """Of the flipped test images, one attribute after another."""
        store = self.flips.flipped.trajectories
        assert store is not None
        if self.site == MID:
            return store
        if self._flip_maps is None:
            self._flip_maps = SiteMaps(self.domain.backbone, store, self.site)
        return self._flip_maps

    def walk(self, low: int, high: int) -> Walk:
        """Of a range of timesteps."""
        return Walk.of(self.artifacts.timesteps, low, high)

    def x_t(self, place: int, rows: Sequence[int]) -> Tensor:
        """Of test images, at a place of the timesteps."""
        store = self.artifacts.test.trajectories
        assert store is not None
        return store.x_t(place, list(rows))

    @cached_property
    def similarity_to_text(self) -> dict[int, Array]:
        """Attribute → [n_train] how much an image is like its concept's text, by the guide CLIP."""
        clip = self.domain.guide_clip
        with torch.no_grad():
            images = clip.encode_image(self.artifacts.train.batch.pixels)
        found: dict[int, Array] = {}
        for concept in self.card.concepts:
            direction = clip.text_direction(concept.source_prompt, concept.target_prompt)
            place = self.attributes.index(concept.attribute)
            found.setdefault(place, (images @ direction).double().numpy())
        return found

    @cached_property
    def image_similarity(self) -> Array:
        """[n, n] of the test images, by the CLIP that scores and never guides."""
        embedded = self.domain.score_clip.embed(self.artifacts.test.batch.pixels).double()
        found: Array = (embedded @ embedded.T).numpy()
        return found

    @cached_property
    def masks(self) -> Array:
        """[A, m, P] share of each cell's pixels that flipping a factor changes."""
        base = self.artifacts.test.batch.pixels[: self.pair_images]
        height, width = self.test.h(0, slice(0, 1)).shape[2:]
        found = []
        for a in range(len(self.attributes)):
            flip = self.flips.flipped.batch.pixels[self.flips.rows(a)]
            changed = ((flip - base).abs().amax(1, keepdim=True) > _CHANGED).float()
            found.append(functional.adaptive_avg_pool2d(changed, (height, width)).flatten(1))
        return torch.stack(found).double().numpy()

    @cached_property
    def base_logits(self) -> Array:
        """[n, A] of the reconstructions of the test images, by the primary classifier."""
        found: Array = self.scorers.unedited_logits(self.artifacts.test.inversions)[1][0]
        return found

    @cached_property
    def logit_spread(self) -> Array:
        """[A] standard deviation over test images: the unit of a change."""
        found: Array = np.maximum(self.base_logits.std(0), 1e-6)
        return found

    @cached_property
    def flipped_decisions(self) -> Labels:
        """[A, m, A] of the classifier on the flipped test images."""
        pixels = from_8_bits(to_8_bits(self.flips.flipped.batch.pixels))
        decisions = self.scorers.logits(pixels)[0] > 0
        m, a = self.pair_images, len(self.attributes)
        found: Labels = decisions.reshape(a, m, a)
        return found

    def logits(self, images: Tensor) -> Array:
        """[n, A] of generated images, by the primary classifier, as a picture would hold them."""
        found: Array = self.scorers.logits(from_8_bits(to_8_bits(images)))[0]
        return found
