"""Scores of all methods on all concepts, under resampled images: one draw for all of them.

Images are shared: every method edits the same ones, and so do many concepts. One draw of the images
of a data set therefore weighs every method and concept at once. What two methods, or two concepts,
owe to the same images is then still there in the draws, and a difference of methods cancels it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.intervals import RESAMPLES, resampling_weights

Score = Callable[[Array], Array]
"""Weights [R, I] >= 0 of all I images → scores [R, M, C] of M methods on C concepts.

Scores are on a scale that may be averaged, higher is better. The weights of a data set sum to 1;
the function normalises them over the images that a concept uses. NaN where a weighting leaves a
score undefined.
"""


@dataclass(frozen=True)
class Design:
    """What was measured: which data set each image and each concept belongs to.

    Attributes:
        images: [I] data set of each distinct image, in the order of the weights.
        concepts: [C] data set of each concept, in the order of the scores.

    Raises:
        InputError: without a concept, or where a concept's data set has no image.
    """

    images: tuple[str, ...]
    concepts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.concepts:
            raise InputError("a comparison needs at least one concept")
        if bare := sorted(set(self.concepts) - set(self.images)):
            raise InputError(f"no image belongs to {', '.join(bare)}")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Those that have concepts, in order of name."""
        return tuple(sorted(set(self.concepts)))

    def images_of(self) -> dict[str, int]:
        """Data set → number of its images."""
        counts = Counter(self.images)
        return {name: counts[name] for name in self.datasets}

    def columns_of(self, dataset: str) -> list[int]:
        """Places of a data set's concepts."""
        return [c for c, name in enumerate(self.concepts) if name == dataset]

    def weights(self, macro: bool = False) -> Array:
        """[C] of the mean over concepts, with sum 1.

        Args:
            macro: give each data set the same weight instead of each concept.
        """
        counts = Counter(self.concepts)
        shares = [1 / counts[name] if macro else 1.0 for name in self.concepts]
        return np.array(shares) / sum(shares)


@dataclass(frozen=True)
class ScoreDraws:
    """Scores as measured, and as they would have been with other images.

    Attributes:
        design: of images and concepts.
        methods: M distinct names.
        scores: [M, C] as measured, finite.
        draws: [R, M, C] under R resamples of the images, NaN or infinite where undefined.
    """

    design: Design
    methods: tuple[str, ...]
    scores: Array
    draws: Array


def draw_scores(
    score: Score,
    methods: Sequence[str],
    design: Design,
    seed: int,
    *,
    resamples: int = RESAMPLES,
) -> ScoreDraws:
    """Evaluate the scores on all images, and on images drawn again within each data set.

    Args:
        score: see `Score`; called twice.
        methods: names, in the order of the scores.
        design: of images and concepts.
        seed: of the draws; data sets are drawn independently of each other.
        resamples: R, how many.

    Raises:
        InputError: if names repeat, or scores have another shape or are not finite on all images.
    Source: Efron 1979; clusters are images, as in Field & Welsh 2007.
    """
    if not methods or len(set(methods)) != len(methods):
        raise InputError(f"methods {list(methods)} must be distinct, and at least one")
    shape = (len(methods), len(design.concepts))
    scores = _checked(score(_uniform(design)), (1, *shape))[0]
    if not np.isfinite(scores).all():
        m, c = np.argwhere(~np.isfinite(scores))[0]
        raise InputError(f"'{methods[m]}' has no finite score on concept {c}")
    draws = _checked(score(_drawn(design, seed, resamples)), (resamples, *shape))
    return ScoreDraws(design, tuple(methods), scores, draws)


def _checked(values: Array, shape: tuple[int, ...]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"scores have shape {list(array.shape)}, expected {list(shape)}")
    return array


def _uniform(design: Design) -> Array:
    counts = Counter(design.images)
    return np.array([[1 / counts[name] for name in design.images]])


def _drawn(design: Design, seed: int, resamples: int) -> Array:
    """[R, I]: images drawn with replacement within each data set, weights of each with sum 1."""
    weights = np.empty((resamples, len(design.images)))
    for place, (name, count) in enumerate(sorted(Counter(design.images).items())):
        own = [i for i, dataset in enumerate(design.images) if dataset == name]
        # Data sets of equally many images must not be drawn alike.
        stream = int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])
        weights[:, own] = resampling_weights(count, resamples, stream)
    return weights
