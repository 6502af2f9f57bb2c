"""What editors and attacks begin with, and the scorers that judge a method's edits.

Reconstructions are all but perfect here: noise as strong as the error of the benchmark's own
inversion is added to an image and to its edit alike, so that there is a noise floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import Concept
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendering.renderer import Drawing, Factors
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.models.random_numbers import image_noise
from casl_bench.runs.scoring import Scorers, background_changes, pictures_of
from casl_bench.studies.purified import PurifiedScorers

SEED = 0
SPLIT = "validation"
SPREAD_IMAGES = 128
"""Training images over which logits' standard deviations and unrelated pairs are taken."""
RECONSTRUCTION_NOISE = 0.02
"""Standard deviation, pixels in [-1, 1]: 40 dB, as suites `default` and `full` reconstruct."""

ATTRIBUTE_SD = 0.5
NUISANCE_SD = 12**-0.5
"""Standard deviations of the factors, in their own units."""


@dataclass(frozen=True)
class Subject:
    """What the edits of one concept, which are to turn its attribute on, start from.

    `lacking` are factors of n images that lack the attribute, `having` of n that have it.
    """

    drawing: Drawing
    concept: Concept
    lacking: Factors
    having: Factors

    @property
    def target(self) -> int:
        """Column of the attribute."""
        return self.drawing.index(self.concept.attribute)

    def rng(self, *purpose: str) -> np.random.Generator:
        """Random numbers of this concept and purpose."""
        keys = (self.drawing.name, self.concept.name, *purpose)
        return np.random.default_rng(derive_seed(SEED, "graded edits", *keys))


def subject_of(drawing: Drawing, concept: Concept, images: int) -> Subject:
    """The first validation images that lack the concept's attribute, and as many that have it."""
    stream = derive_seed(SEED, drawing.name, SPLIT)
    factors = drawing.sample(np.arange(8 * images + 64), stream)
    has = factors.attributes[:, drawing.index(concept.attribute)]
    return Subject(drawing, concept, factors[~has][:images], factors[has][:images])


class StudyScorers:
    """The scorers of a rendered data set, with the spread of its logits [classifiers, A].

    With a seed they see pictures purified with noise of that seed, as re-judging does.
    """

    def __init__(self, domain: Domain, seed: int | None = None) -> None:
        self.scorers = Scorers(domain)
        self.purified = None if seed is None else PurifiedScorers(domain, seed)
        train = domain.dataset.load("train", SPREAD_IMAGES)
        self.spreads: Array = self.scorers.logits(train.pixels).std(axis=1)
        self.unrelated = self.scorers.unrelated(_inversions(train.image_ids, train.pixels))

    def scores(
        self, concept: Concept, before: Factors, rendered: Tensor, edits: Sequence[Tensor]
    ) -> list[dict[str, EditScores]]:
        """Classifier → scores, for each of S edits of the same n images.

        Args:
            concept: what is edited.
            before: factors of the images.
            rendered: their pictures [n, 3, H, W].
            edits: S times [n, 3, H, W].
        """
        ids = tuple(f"{SPLIT}-{i:06d}" for i in before.image_ids.tolist())
        noise = RECONSTRUCTION_NOISE * image_noise(rendered.shape[1:], ids, SEED, "reconstruction")
        images = _inversions(ids, rendered, rendered + noise)
        places = [float(i) for i in range(1, len(edits) + 1)]
        pictures = pictures_of(images, torch.stack([edit + noise for edit in edits]), places)
        known = self.scorers.known_change(concept, images)
        if self.purified is None:
            table = self.scorers.scores(concept, pictures, known)
        else:
            table = self.purified.scores(concept, pictures, background_changes(pictures, known))
        return [
            {
                name: table.at(
                    place,
                    concept.attribute,
                    self.spreads[k],
                    classifier=name,
                    unrelated_perceptual=self.unrelated[0],
                    unrelated_identity=self.unrelated[1],
                )
                for k, name in enumerate(table.classifiers)
            }
            for place in places
        ]


def _inversions(
    ids: tuple[str, ...], images: Tensor, reconstruction: Tensor | None = None
) -> Inversions:
    """Images as scorers take them; nothing is inverted."""
    base = images if reconstruction is None else reconstruction
    return Inversions(ids, (0,), images, torch.zeros_like(images), base)
