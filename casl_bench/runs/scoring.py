"""Edited pixels → per-image scores.

Everything is scored as it is stored: rounded to 8 bits. So a stored image scores the same again,
and a method gains nothing from values that no picture can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import Concept, SupportsOracle
from casl_bench.domains.domain import Domain
from casl_bench.metrics.edit_scores import Array, spread_of
from casl_bench.metrics.image_similarity import background_change, pixel_locality
from casl_bench.models.scorers import compare
from casl_bench.results.edited_images import EditedImages, Pixels, to_pixels
from casl_bench.results.record import ReferenceScales
from casl_bench.results.score_table import ScoreTable
from casl_bench.runs.artifacts import Artifacts


def to_8_bits(images: Tensor) -> Pixels:
    """[..., 3, H, W] in [-1, 1] → [..., H, W, 3] uint8."""
    return to_pixels(images.detach().cpu().numpy().astype(np.float32))


def from_8_bits(pixels: Pixels) -> Tensor:
    """[..., H, W, 3] uint8 → [..., 3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))).float() / 127.5 - 1


def pictures_of(inversions: Inversions, edits: Tensor, strengths: Sequence[float]) -> EditedImages:
    """Images, reconstructions and edits [S, n, 3, H, W] as they are stored and scored."""
    return EditedImages(
        inversions.image_ids,
        tuple(strengths),
        to_8_bits(inversions.x_0),
        to_8_bits(inversions.reconstruction),
        to_8_bits(edits),
    )


def background_changes(pictures: EditedImages, known: Array | None) -> Array | None:
    """[S, n] see `background_change`; None where the perfect edit's change is not known."""
    if known is None:
        return None
    base = from_8_bits(pictures.reconstruction).numpy()
    edits = from_8_bits(pictures.edits).numpy()
    return np.stack([background_change(some, base, known) for some in edits])


class Scorers:
    """The domain's scorers; what they say of sources and reconstructions is computed once."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        factors = domain.factors
        self._source_logits, self._base_logits = _Once(self._rows), _Once(self._rows)
        self._base_clip = _Once(domain.score_clip.embed)
        self._base_factors = None if factors is None else _Once(factors.factors)

    @property
    def names(self) -> tuple[str, ...]:
        """Classifiers, the primary one first."""
        return tuple(c.info.name for c in self.domain.classifiers)

    def logits(self, images: Tensor) -> Array:
        """[n, 3, H, W] → [K, n, A] float64."""
        return _by_classifier(self._rows(images))

    def _rows(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] → [n, K, A] float64."""
        return torch.stack([c.logits(images).double() for c in self.domain.classifiers], 1)

    def table(
        self,
        concept: Concept | None,
        inversions: Inversions,
        edits: Tensor,
        strengths: Sequence[float],
    ) -> tuple[ScoreTable, EditedImages]:
        """Scores of edits [S, n, 3, H, W] of n images at S non-zero strengths, and their pictures.

        CLIP compares with the words of the concept that was edited. A random edit has none, and is
        scored by what serves all concepts alone.
        """
        pictures = pictures_of(inversions, edits, strengths)
        known = None if concept is None else self.known_change(concept, inversions)
        return self.scores(concept, pictures, known), pictures

    def scores(
        self, concept: Concept | None, pictures: EditedImages, known: Array | None = None
    ) -> ScoreTable:
        """Score stored pictures, see `table`; `known` [n, 3, H, W] is the perfect edit's change."""
        ids, clip, reader = pictures.image_ids, self.domain.score_clip, self.domain.factors
        source, base, edited = pictures.source, pictures.reconstruction, pictures.edits
        base_clip = self._base_clip(ids, base)
        base_images, images = from_8_bits(base), from_8_bits(edited)
        perceptual, identity = compare(self.domain.embedder, images, base_images)
        logits, similarity = [], []
        locality: list[Array] = []
        factors: list[tuple[Array, Array, Array]] = []
        for some in images:
            logits.append(self.logits(some))
            if concept is None:
                continue
            words = (concept.source_prompt, concept.target_prompt)
            agreement = clip.direction_similarity(base_clip, clip.embed(some), *words)
            similarity.append(agreement.numpy())
            if known is not None:
                locality.append(pixel_locality(some.numpy(), base_images.numpy(), known))
            if reader is not None and self._base_factors is not None:
                moved = reader.factors(some) - self._base_factors(ids, base)
                target, others = reader.change_of(moved, concept.attribute)
                worst = reader.worst_change_of(moved, concept.attribute)
                factors.append((target.numpy(), others.numpy(), worst.numpy()))
        read: list[Array | None] = [np.stack(values) for values in zip(*factors, strict=True)]
        return ScoreTable(
            ids,
            pictures.strengths,
            self.domain.dataset.card.attributes,
            self.names,
            _by_classifier(self._source_logits(ids, source)),
            _by_classifier(self._base_logits(ids, base)),
            np.stack(logits, axis=1),
            np.stack(similarity) if similarity else None,
            perceptual.numpy(),
            None if identity is None else identity.numpy(),  # such as of a church
            np.stack(locality) if locality else None,
            background_changes(pictures, known),
            *read,
        )

    def known_change(self, concept: Concept, inversions: Inversions) -> Array | None:
        """[n, 3, H, W] what the perfect edit changes; None where that is unknown."""
        dataset = self.domain.dataset
        if not isinstance(dataset, SupportsOracle):
            return None
        flipped = dataset.oracle(inversions.image_ids, concept.attribute)
        return (flipped - inversions.x_0).double().numpy()

    def unrelated(self, inversions: Inversions) -> tuple[float | None, float | None]:
        """Mean distance and identity of pairs of unrelated images: each of n and the next.

        None where it cannot be measured, or where it says that they are the same image.
        """
        images = from_8_bits(to_8_bits(inversions.x_0))
        others = images.roll(-1, 0)
        distance = float(self.domain.embedder.perceptual_distance(images, others).double().mean())
        alike = self.domain.embedder.identity_similarity(images, others)
        likeness = None if alike is None else float(alike.double().mean())
        return (
            distance if distance > 0 else None,
            likeness if likeness is not None and likeness < 1 else None,
        )

    def unedited_logits(self, inversions: Inversions) -> tuple[Array, Array]:
        """[K, n, A] of the sources and of their reconstructions."""
        ids = inversions.image_ids
        source = self._source_logits(ids, to_8_bits(inversions.x_0))
        base = self._base_logits(ids, to_8_bits(inversions.reconstruction))
        return _by_classifier(source), _by_classifier(base)


class _Once:
    """What a scorer makes of pictures, each image once; `look` maps [n, 3, H, W] to n rows."""

    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        self._look = look
        self._rows: dict[str, Tensor] = {}

    def __call__(self, ids: Sequence[str], pixels: NDArray[np.uint8]) -> Tensor:
        """[n, …] for the pictures [n, H, W, 3] of these images."""
        new = [i for i, name in enumerate(ids) if name not in self._rows]
        if new:
            rows = self._look(from_8_bits(pixels[new]))
            self._rows |= {ids[i]: row for i, row in zip(new, rows, strict=True)}
        return torch.stack([self._rows[name] for name in ids])


def _by_classifier(rows: Tensor) -> Array:
    """[n, K, A] → [K, n, A], laid out so: the order of sums depends on it."""
    return np.ascontiguousarray(rows.transpose(0, 1).numpy())


BALANCED = 2.0
"""Distance in sd of two classes that are equally common and well apart."""


class DatasetScales:
    """The units of one data set, each measured once."""

    def __init__(self, artifacts: Artifacts, scorers: Scorers) -> None:
        self.artifacts, self.scorers = artifacts, scorers
        self._full_effects: dict[str, Array] = {}

    @cached_property
    def train_logits(self) -> Array:
        """[K, n, A] of the training images."""
        return self.scorers.logits(self.artifacts.train.inversions.x_0)

    @cached_property
    def spreads(self) -> Array:
        """[K, A] standard deviation of each classifier's logits over the training images.

        Raises InvalidBenchmarkError, naming classifier and attributes, where logits do not vary.
        """
        spreads = spread_of(self.train_logits, 1)
        attributes = self.artifacts.domain.dataset.card.attributes
        for name, own in zip(self.scorers.names, spreads, strict=True):
            if flat := [a for a, s in zip(attributes, own, strict=True) if not s]:
                raise InvalidBenchmarkError(
                    f"a classifier says the same of every training image on {', '.join(flat)}",
                    where=name,
                    hint="give a classifier that knows every attribute",
                )
        return spreads

    def spread(self, classifier: str) -> Array:
        """[A] of one classifier."""
        own: Array = self.spreads[self.scorers.names.index(classifier)]
        return own

    @cached_property
    def reference_scales(self) -> ReferenceScales:
        """As records keep them."""
        perceptual, identity = self.scorers.unrelated(self.artifacts.test.inversions)
        return ReferenceScales(
            spreads={
                name: tuple(map(float, own))
                for name, own in zip(self.scorers.names, self.spreads, strict=True)
            },
            unrelated_perceptual=perceptual,
            unrelated_identity=identity,
        )

    def full_effect(self, concept: Concept, classifier: str) -> float:
        """Mean target change of the perfect edit on the validation images, in sd.

        Where the perfect edit is not known: the distance of the mean logits of training images
        with the attribute and without it, which is what a flip comes to on the average. Where
        these are all of one class: what two balanced classes would be apart. Raises
        InvalidBenchmarkError where it is not positive: the classifier does not see the concept.
        """
        if concept.name not in self._full_effects:
            self._full_effects[concept.name] = self._measure(concept)
        effect = float(self._full_effects[concept.name][self.scorers.names.index(classifier)])
        if not effect > 0:
            raise InvalidBenchmarkError(
                f"'{classifier}' sees {effect:.3g} standard deviations of the perfect "
                f"'{concept.name}'",
                hint="use another classifier, or leave the concept out",
            )
        return effect

    def _measure(self, concept: Concept) -> Array:
        """[K] by each classifier."""
        artifacts, dataset = self.artifacts, self.artifacts.domain.dataset
        column = dataset.card.attributes.index(concept.attribute)
        if isinstance(dataset, SupportsOracle):
            inversions = artifacts.concept_validation(concept).inversions
            change = dataset.oracle(inversions.image_ids, concept.attribute) - inversions.x_0
            perfect = from_8_bits(to_8_bits(inversions.reconstruction + change))
            before = self.scorers.unedited_logits(inversions)[1]
            moved = (self.scorers.logits(perfect) - before).mean(1)
        else:
            there = artifacts.presence(artifacts.train)[:, column].numpy()
            if there.all() or not there.any():
                return np.full(len(self.spreads), BALANCED)
            moved = self.train_logits[:, there].mean(1) - self.train_logits[:, ~there].mean(1)
        return np.asarray(moved[:, column] / self.spreads[:, column])
