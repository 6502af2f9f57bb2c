"""Scores of all methods on all concepts under resampled images: one resample for all of them.

Images are shared: every method edits the same ones, and so do many concepts. One resample of the
images of a data set therefore weighs every method and concept at once. What two methods, or two
concepts, owe to the same images is then still there, and a difference of methods cancels it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import (
    LEVEL,
    MAX_UNDEFINED,
    RESAMPLES,
    Interval,
    resampling_weights,
)
from casl_bench.metrics.edit_scores import Array

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
    """

    images: tuple[str, ...]
    concepts: tuple[str, ...]

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

    @property
    def weights(self) -> Array:
        """[C] of the mean over concepts, with sum 1."""
        return np.ones(len(self.concepts)) / len(self.concepts)


@dataclass(frozen=True)
class ResampledScores:
    """Scores as measured, and as they would have been with other images.

    Attributes:
        design: of images and concepts.
        methods: M distinct names.
        measured: [M, C], finite.
        resampled: [R, M, C] under R resamples of the images, NaN or infinite where undefined.
    """

    design: Design
    methods: tuple[str, ...]
    measured: Array
    resampled: Array


def resample_scores(
    score: Score,
    methods: Sequence[str],
    design: Design,
    seed: int,
    *,
    resamples: int = RESAMPLES,
) -> ResampledScores:
    """Evaluate the scores on all images, and on images resampled within each data set.

    Methods are in the order of the scores; data sets are resampled independently of each other.

    Raises:
        InputError: if scores are not finite on all images.
    Source: Efron 1979; clusters are images, as in Field & Welsh 2007.
    """
    counts = Counter(design.images)
    measured = score(np.array([[1 / counts[name] for name in design.images]]))[0]
    if not np.isfinite(measured).all():
        m, c = np.argwhere(~np.isfinite(measured))[0]
        raise InputError(f"'{methods[m]}' has no finite score on concept {c}")
    resampled = score(_resamples(design, seed, resamples))
    return ResampledScores(design, tuple(methods), measured, resampled)


def _resamples(design: Design, seed: int, resamples: int) -> Array:
    """[R, I]: images sampled with replacement within each data set, weights of each of sum 1."""
    weights = np.empty((resamples, len(design.images)))
    for place, (name, count) in enumerate(sorted(Counter(design.images).items())):
        own = [i for i, dataset in enumerate(design.images) if dataset == name]
        # Data sets of equally many images must not be resampled alike.
        stream = int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])
        weights[:, own] = resampling_weights(count, resamples, stream)
    return weights


# How far a mean over concepts may lie from what other images and other concepts would give.


@dataclass(frozen=True)
class Noise:
    """Standard errors of one number, each with its degrees of freedom; the widest counts.

    Attributes:
        terms: (standard error > 0, degrees of freedom); none where the noise is not known.
        reason: why it is not; None where it is.
    """

    terms: tuple[tuple[float, float], ...] = ()
    reason: str | None = None

    def interval(self, value: float, level: float = LEVEL) -> Interval | None:
        """Around `value`, with nominal coverage `level`; None where the noise is not known."""
        if not self.terms:
            return None
        half = max(error * float(stdtrit(df, (1 + level) / 2)) for error, df in self.terms)
        return value - half, value + half

    def p_value(self, value: float) -> float | None:
        """Two-sided, of the true number being 0: below 1 - level where the interval is off 0."""
        if not self.terms:
            return None
        return max(2 * float(stdtr(df, -abs(value) / error)) for error, df in self.terms)


def noise_here(scores: Array, resampled: Array, design: Design) -> Noise:
    """The noise of a mean over these very concepts: other images only.

    Scores are [C] as measured and [R, C] under resampled images.
    """
    parts = _parts(scores, resampled, design)
    return parts if isinstance(parts, Noise) else _known([parts.here], scores)


def noise_beyond(
    scores: Array, resampled: Array, design: Design, *, cautious: bool = False
) -> Noise:
    """The noise of a mean over concepts like these: other concepts, other images.

    It includes what a fit of another seed would have changed, as each concept has a fit of its own,
    and is never less than `noise_here`. Each data set needs two concepts. A cautious one takes the
    degrees of freedom of the concepts or the images alone, whichever are fewer, instead of weighing
    them by their variances: for decisions that should rather be withheld.
    """
    parts = _parts(scores, resampled, design)
    if isinstance(parts, Noise):
        return parts
    if parts.lone:
        return Noise(reason=f"{parts.lone} has but one concept")
    total = parts.concepts + parts.shared
    df = float(min(parts.df_concepts, parts.df_images))
    if not cautious and total > 0:
        df = total**2 / (parts.concepts**2 / parts.df_concepts + parts.shared**2 / parts.df_images)
    return _known([(total, df), parts.here], scores)


@dataclass(frozen=True)
class _Parts:
    """Variances of a mean over concepts, and their degrees of freedom."""

    images: float
    concepts: float
    shared: float
    df_concepts: int
    df_images: int
    lone: str

    @property
    def here(self) -> tuple[float, float]:
        return self.images, self.df_images


def _parts(scores: Array, resampled: Array, design: Design) -> _Parts | Noise:
    images_of, weights = design.images_of(), design.weights
    for name, count in images_of.items():
        if count < 2:
            return Noise(reason=f"{name} has fewer than two images")
    kept = resampled[np.isfinite(resampled).all(1)]
    if len(kept) < 2 or len(kept) < (1 - MAX_UNDEFINED) * len(resampled):
        return Noise(reason="undefined for too many resamples of the images")
    images = concepts = shared = 0.0
    lone = ""
    for name, count in images_of.items():
        columns = design.columns_of(name)
        c = len(columns)
        squared = float(weights[columns].sum()) ** 2
        factor = squared * count / (count - 1)
        of_mean = float(kept[:, columns].mean(1).var(ddof=1))
        images += factor * of_mean
        if c == 1:
            lone = lone or name
            continue
        apart = float(kept[:, columns].var(0, ddof=1).sum()) / c**2
        concepts += squared * float(scores[columns].var(ddof=1)) / c
        shared += factor * (of_mean - apart) * c / (c - 1)
    df_images = sum(images_of.values()) - len(images_of)
    df_concepts = len(design.concepts) - len(images_of)
    return _Parts(images, concepts, max(shared, 0.0), df_concepts, df_images, lone)


def _known(variances: list[tuple[float, float]], scores: Array) -> Noise:
    """Standard errors; those that are only the rounding of sums are none."""
    least = 1e-12 + 1e-9 * float(np.abs(scores).max())
    terms = tuple((math.sqrt(v), df) for v, df in variances if math.sqrt(v) > least)
    return Noise(terms) if terms else Noise(reason="nothing varies")
