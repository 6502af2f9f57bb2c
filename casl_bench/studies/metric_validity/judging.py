"""Graded edits → scores, by the very code that scores a method's edits.

Reconstructions are all but perfect here: noise as strong as the error of the benchmark's own
inversion is added to a picture and to its edit alike, so that there is a noise floor to speak of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from casl_bench.core.seeding import derive_seed, image_noise
from casl_bench.images.dataset import Concept
from casl_bench.images.drawing import Drawing, Factors
from casl_bench.images.rendered_dataset import to_pixels
from casl_bench.inversion.inversions import Inversions
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.runs.cells.scoring import Scorers
from casl_bench.studies.metric_validity.graded_edits import SEED, GradedEdit, Subject
from casl_bench.worlds.world import World

SPLIT = "validation"
SPREAD_IMAGES = 128
"""Training images over which logits' standard deviations and unrelated pairs are taken."""
RECONSTRUCTION_NOISE = 0.0063
"""Standard deviation, pixels in [-1, 1]: 50 dB, as suite `standard` reconstructs."""


def subject_of(drawing: Drawing, concept: Concept, images: int) -> Subject:
    """The first validation images that lack the concept's attribute, and as many that have it.

    Args:
        drawing: the renderer.
        concept: what is edited.
        images: n of each.
    """
    stream = derive_seed(SEED, drawing.name, SPLIT)
    factors = drawing.sample(np.arange(8 * images + 64), stream)
    has = factors.attributes[:, drawing.index(concept.attribute)]
    return Subject(drawing, concept, factors[~has][:images], factors[has][:images])


class Renderer:
    """Draws each picture once: edits of a concept share most of theirs."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self._drawn: dict[tuple[bytes, bytes], Tensor] = {}

    def draw(self, factors: Factors) -> Tensor:
        """[n, 3, H, W] float32 in [-1, 1]."""
        return torch.stack([self._one(factors[i : i + 1]) for i in range(len(factors))])

    def _one(self, factors: Factors) -> Tensor:
        key = (factors.attributes.tobytes(), factors.nuisance.tobytes())
        if key not in self._drawn:
            self._drawn[key] = to_pixels(self.drawing.render(factors))[0]
        return self._drawn[key]

    def draw_edit(self, edit: GradedEdit) -> Tensor:
        """The finished pictures of an edit, [n, 3, H, W]."""
        pixels = self.draw(edit.end)
        if edit.share < 1:
            start = self.draw(edit.start)
            pixels = start + edit.share * (pixels - start)
        return pixels if edit.damage is None else edit.damage(pixels)


class Judge:
    """The scorers of a world.

    Args:
        world: a drawn one.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.scorers = Scorers(world)
        train = world.dataset.load("train", SPREAD_IMAGES)
        self.spreads: Array = self.scorers.logits(train.pixels).std(axis=1)
        self.unrelated = self.scorers.unrelated(_inversions(train.image_ids, train.pixels))

    def scores(
        self, concept: Concept, before: Factors, drawn: Tensor, edits: Sequence[Tensor]
    ) -> list[dict[str, EditScores]]:
        """Scores of edits of the same images.

        Args:
            concept: what is edited.
            before: factors of the n images.
            drawn: their pictures [n, 3, H, W].
            edits: S times [n, 3, H, W].

        Returns:
            For each edit: classifier → scores.
        """
        ids = tuple(f"{SPLIT}-{i:06d}" for i in before.image_ids.tolist())
        noise = _reconstruction_noise(ids, drawn)
        images = _inversions(ids, drawn, drawn + noise)
        places = [float(i) for i in range(1, len(edits) + 1)]
        edited = torch.stack([edit + noise for edit in edits])
        table, _ = self.scorers.table(concept, images, edited, places)
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


def _reconstruction_noise(ids: tuple[str, ...], drawn: Tensor) -> Tensor:
    return RECONSTRUCTION_NOISE * image_noise(drawn.shape[1:], ids, SEED, "reconstruction")
