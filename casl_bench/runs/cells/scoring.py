"""Edited pixels → per-image scores.

Everything is scored as it is stored: rounded to 8 bits. So a stored image scores the same again,
and a method gains nothing from values that no picture can hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.images.dataset import Concept, SupportsOracle
from casl_bench.inversion.inversions import Inversions
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.pixel_locality import pixel_locality
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.edited_images import EditedImages, Pixels, to_pixels
from casl_bench.worlds.world import World


def to_8_bits(images: Tensor) -> Pixels:
    """[..., 3, H, W] in [-1, 1] → [..., H, W, 3] uint8."""
    return to_pixels(images.detach().cpu().numpy().astype(np.float32))


def from_8_bits(pixels: Pixels) -> Tensor:
    """[n, H, W, 3] uint8 → [n, 3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1))).float() / 127.5 - 1


class Scorers:
    """The world's scorers, with the scores of sources and reconstructions kept by image id.

    Each image is edited for many concepts and by many methods; its own scores are computed once.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._unedited: dict[tuple[str, str], tuple[Array, Tensor]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Classifiers, the primary one first."""
        return tuple(c.info.name for c in self.world.classifiers)

    def logits(self, images: Tensor) -> Array:
        """[n, 3, H, W] → [K, n, A] float64."""
        rows = [c.logits(images).double().numpy() for c in self.world.classifiers]
        return np.stack(rows)

    def table(
        self, concept: Concept, inversions: Inversions, edits: Tensor, strengths: Sequence[float]
    ) -> tuple[ScoreTable, EditedImages]:
        """Score the edits of one concept.

        Args:
            concept: what was edited; its words are what CLIP compares with.
            inversions: the n images.
            edits: [S, n, 3, H, W].
            strengths: S numbers, none of them 0.

        Returns:
            The scores, and the pictures that were scored.
        """
        source = to_8_bits(inversions.x_0)
        base = to_8_bits(inversions.reconstruction)
        edited = to_8_bits(edits)
        source_logits, _ = self._of_unedited("source", inversions.image_ids, source)
        base_logits, base_clip = self._of_unedited("reconstruction", inversions.image_ids, base)
        base_images = from_8_bits(base)
        clip, embedder = self.world.score_clip, self.world.embedder
        words = (concept.source_prompt, concept.target_prompt)
        known = self._known_change(concept, inversions)
        logits, similarity, perceptual = [], [], []
        identity: list[Array] = []
        locality: list[Array] = []
        factors: list[tuple[Array, Array]] = []
        for pixels in edited:
            images = from_8_bits(pixels)
            logits.append(self.logits(images))
            similarity.append(
                clip.direction_similarity(base_clip, clip.embed(images), *words).numpy()
            )
            perceptual.append(embedder.perceptual_distance(images, base_images).numpy())
            alike = embedder.identity_similarity(images, base_images)
            if alike is not None:  # nobody tells the identity of a church
                identity.append(alike.numpy())
            if known is not None:
                locality.append(pixel_locality(images.numpy(), base_images.numpy(), known))
            if self.world.factors is not None:
                moved = self.world.factors.factor_change(images, base_images, concept.attribute)
                factors.append((moved[0].numpy(), moved[1].numpy()))
        table = ScoreTable(
            inversions.image_ids,
            tuple(strengths),
            self.world.dataset.card.attributes,
            self.names,
            source_logits,
            base_logits,
            np.stack(logits, axis=1),
            np.stack(similarity),
            np.stack(perceptual),
            np.stack(identity) if identity else None,
            np.stack(locality) if locality else None,
            np.stack([target for target, _ in factors]) if factors else None,
            np.stack([others for _, others in factors]) if factors else None,
        )
        return table, EditedImages(
            inversions.image_ids, tuple(strengths), source, base, edited, None
        )

    def _known_change(self, concept: Concept, inversions: Inversions) -> Array | None:
        """[n, 3, H, W] what the perfect edit changes; None where nobody knows."""
        dataset = self.world.dataset
        if not isinstance(dataset, SupportsOracle):
            return None
        flipped = dataset.oracle(inversions.image_ids, concept.attribute)
        return (flipped - inversions.x_0).double().numpy()

    def unrelated(self, inversions: Inversions) -> tuple[float | None, float | None]:
        """How far apart images are that have nothing to do with each other: each and the next.

        Returns:
            Mean distance and mean likeness of n pairs; None where it cannot be told, or where it
            says that they are the same image.
        """
        images = from_8_bits(to_8_bits(inversions.x_0))
        others = images.roll(-1, 0)
        distance = float(self.world.embedder.perceptual_distance(images, others).double().mean())
        alike = self.world.embedder.identity_similarity(images, others)
        likeness = None if alike is None else float(alike.double().mean())
        return (
            distance if distance > 0 else None,
            likeness if likeness is not None and likeness < 1 else None,
        )

    def unedited_logits(self, inversions: Inversions) -> tuple[Array, Array]:
        """[K, n, A] of the sources and of their reconstructions."""
        ids = inversions.image_ids
        source, _ = self._of_unedited("source", ids, to_8_bits(inversions.x_0))
        base, _ = self._of_unedited("reconstruction", ids, to_8_bits(inversions.reconstruction))
        return source, base

    def _of_unedited(
        self, picture: str, ids: Sequence[str], pixels: NDArray[np.uint8]
    ) -> tuple[Array, Tensor]:
        """Logits [K, n, A] and CLIP embeddings [n, D] of sources or reconstructions."""
        new = [i for i, name in enumerate(ids) if (picture, name) not in self._unedited]
        if new:
            images = from_8_bits(pixels[new])
            logits, embedded = self.logits(images), self.world.score_clip.embed(images)
            for row, i in enumerate(new):
                self._unedited[picture, ids[i]] = (logits[:, row], embedded[row])
        kept = [self._unedited[picture, name] for name in ids]
        return np.stack([k[0] for k in kept], axis=1), torch.stack([k[1] for k in kept])
