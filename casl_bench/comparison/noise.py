"""How far a mean over concepts may lie from what other images and other concepts would give.

Images are crossed with concepts, so neither is nested in the other and neither alone is the unit.
With s_c the score on concept c, S² the variance of s_c over concepts and Cov* that over resamples
of the images, both with their small-sample factors,

    V_images   = Var*(mean_c s_c)                        these concepts, other images
    V_concepts = S² / C                                  other concepts, and their own image noise
    V_shared   = mean over c ≠ c' of Cov*(s_c, s_c')     what concepts owe to the same images
    V          = V_concepts + max(V_shared, 0)           other concepts, other images.

Drawing concepts again needs no simulation: a mean's bootstrap variance over concepts is
S² (C - 1) / C², put right by C / (C - 1). V is the two-way clustered variance, V_images +
V_concepts less what both count, written such that it is unbiased at any C. The pigeonhole
bootstrap, which draws both ways, counts that twice: too wide where concepts differ little. Drawing
concepts alone leaves V_shared out: too narrow where images vary much. Percentiles of a handful of
concepts are too narrow anywhere, so intervals are Student's.

Simulated in tests/property/test_comparison_coverage.py, a nominal 95 % holds in 92 to 97 % where
scores spread around one value. Where a fifth of the concepts fail altogether, six may show no
failure, and no interval made of them knows: 86 % at six concepts, 93 % at twenty.

Several data sets are strata: variances of their means add up, weighted by the square of the weight.

Source: Cameron, Gelbach & Miller 2011 (two-way clusters); Owen 2007 (pigeonhole bootstrap);
MacKinnon, Nielsen & Webb 2021 (never below the variance of one way alone); Cameron & Miller 2015
(degrees of freedom of the smaller way); Satterthwaite 1946.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from casl_bench.comparison.resampling import Design
from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.intervals import LEVEL, MAX_UNDEFINED, Interval


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
        if not 0 < level < 1:
            raise InputError(f"level must be in (0, 1), got {level}")
        if not self.terms:
            return None
        half = max(error * float(stdtrit(df, (1 + level) / 2)) for error, df in self.terms)
        return value - half, value + half

    def p_value(self, value: float) -> float | None:
        """Two-sided, of the true number being 0: below 1 - level where the interval is off 0."""
        if not self.terms:
            return None
        return max(2 * float(stdtr(df, -abs(value) / error)) for error, df in self.terms)


def noise_here(scores: Array, draws: Array, design: Design, *, macro: bool = False) -> Noise:
    """The noise of a mean over these very concepts: other images only.

    Args:
        scores: [C] as measured.
        draws: [R, C] under resampled images.
        design: of images and concepts.
        macro: of the mean, as in `Design.weights`.
    """
    parts = _parts(scores, draws, design, macro)
    return parts if isinstance(parts, Noise) else _known([parts.here], scores)


def noise_beyond(
    scores: Array, draws: Array, design: Design, *, macro: bool = False, cautious: bool = False
) -> Noise:
    """The noise of a mean over concepts like these: other concepts, other images.

    It includes what a fit of another seed would have changed, as that is another draw for each
    concept, and is never less than `noise_here`.

    Args:
        scores: [C] as measured.
        draws: [R, C] under resampled images.
        design: of images and concepts; each data set needs two concepts.
        macro: of the mean, as in `Design.weights`.
        cautious: take the degrees of freedom of the concepts or the images alone, whichever are
            fewer, instead of weighing them by their variances: for decisions that should rather be
            withheld.
    """
    parts = _parts(scores, draws, design, macro)
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
    """Variances of a mean, as in the module's equations."""

    images: float
    concepts: float
    shared: float
    df_concepts: int
    df_images: int
    lone: str

    @property
    def here(self) -> tuple[float, float]:
        return self.images, self.df_images


def _parts(scores: Array, draws: Array, design: Design, macro: bool) -> _Parts | Noise:
    images_of, weights = design.images_of(), design.weights(macro)
    for name, count in images_of.items():
        if count < 2:
            return Noise(reason=f"{name} has fewer than two images")
    kept = draws[np.isfinite(draws).all(1)]
    if len(kept) < 2 or len(kept) < (1 - MAX_UNDEFINED) * len(draws):
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
