"""Attributes as linear logits of Gaussian vectors, for tricks that need no picture.

x is standard normal in D dimensions, the logit of attribute j is scale_j · w_j · x. The w_j are
unit vectors that share a component, so that attributes are correlated, and the scales differ, as
those of a trained network's logits do. An edit adds a vector to x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from casl_bench.metrics.arrays import Array

DIMENSIONS = 48
ATTRIBUTES = 12
SAMPLES = 400
SHARED = 0.2
"""Squared length of the component that all w_j share: their mean correlation."""
SCALE_SD = 0.5
"""Standard deviation of the logarithm of the scales."""
JITTER = 0.05
"""Standard deviation, in each dimension, of what an imperfect reconstruction adds."""


@dataclass(frozen=True)
class LinearToy:
    """One draw of it.

    Attributes:
        samples: [n, D] x.
        directions: [A, D] unit vectors w_j.
        scales: [A] of the logits, > 0.
        seed: of the draw.
    """

    samples: Array
    directions: Array
    scales: Array
    seed: int

    def logits(self, x: Array) -> Array:
        """[n, D] → [n, A]."""
        logits: Array = x @ self.directions.T * self.scales
        return logits

    def rng(self, *stream: int) -> np.random.Generator:
        """Random numbers of this draw and a stream."""
        return np.random.default_rng([self.seed, *stream])

    def jitter(self, stream: int) -> Array:
        """[n, D] what an imperfect reconstruction adds."""
        noise: Array = JITTER * self.rng(0, stream).standard_normal(self.samples.shape)
        return noise

    def random_direction(self, *stream: int) -> Array:
        """[D] of length 1, of no attribute."""
        return _unit(self.rng(1, *stream).standard_normal((self.samples.shape[1],)))

    def pure_direction(self, target: int) -> Array:
        """[D] of length 1: the part of w_target that moves no other logit."""
        basis, _ = np.linalg.qr(np.delete(self.directions, target, axis=0).T)
        w: Array = self.directions[target]
        rest: Array = w - basis @ (basis.T @ w)
        return _unit(rest)

    def most_correlated(self, target: int) -> int:
        """The other attribute whose vector is closest to the target's, or to its opposite."""
        closeness = np.abs(self.directions @ self.directions[target])
        closeness[target] = -1
        return int(closeness.argmax())

    def rescaled(self, target: int, factor: float) -> LinearToy:
        """With one logit multiplied."""
        scales = self.scales.copy()
        scales[target] *= factor
        return replace(self, scales=scales)

    def cut(self, kept: Sequence[int]) -> LinearToy:
        """With these attributes only, in this order."""
        places = list(kept)
        return replace(self, directions=self.directions[places], scales=self.scales[places])

    def padded(self, count: int) -> LinearToy:
        """With further attributes of scale 1 that no other one's vector is a part of.

        At most D - A of them.
        """
        rest = self.rng(2).standard_normal((count, self.samples.shape[1]))
        basis, _ = np.linalg.qr(np.concatenate([self.directions, rest]).T)
        added = basis[:, len(self.directions) :].T
        return replace(
            self,
            directions=np.concatenate([self.directions, added]),
            scales=np.concatenate([self.scales, np.ones(count)]),
        )


def draw_toy(seed: int) -> LinearToy:
    """A toy whose vectors, scales and samples are drawn at random."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(DIMENSIONS)
    own = rng.standard_normal((ATTRIBUTES, DIMENSIONS))
    mixed = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own
    directions = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    scales = np.exp(SCALE_SD * rng.standard_normal(ATTRIBUTES))
    return LinearToy(rng.standard_normal((SAMPLES, DIMENSIONS)), directions, scales, seed)


def _unit(vector: Array) -> Array:
    unit: Array = np.divide(vector, np.linalg.norm(vector))
    return unit
