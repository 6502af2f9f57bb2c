"""Base and head of one method on the same images → log ratios with bounds and p-values.

Concepts are a fixed list that the gate asks about, so they are not resampled. What else could have
come out otherwise depends on the fit. A deterministic fit always gives the same edits: images vary,
and one resample of them weighs both sides and all concepts. A fit that uses random numbers gives
other edits with every seed, and varies mostly by that: the paired fits are the unit, with Student's
interval of their means over concepts. An image bootstrap of a single such fit would take the luck
of the fit for the change: 29 % false alarms where fits vary by 5 %.

No method declares which kind its fit is. Several fits of a run show it by their scores: where all
are alike, the fit is deterministic. A single fit is taken for deterministic unless the user names
the method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from casl_bench.analysis.comparison import fit_spread
from casl_bench.analysis.uncertainty import Design, Noise, noise_here
from casl_bench.gate.run_side import FitScoreMatrix
from casl_bench.gate.verdict import ALPHA, MIN_FITS, Effect, Quantity
from casl_bench.metrics.bootstrap import RESAMPLES, resampling_weights
from casl_bench.metrics.edit_scores import Array

Mask = NDArray[np.bool_]
ALIKE = 1e-9
"""Differences below this are the rounding of sums."""

Undefined = Literal["base", "head", "both"]


@dataclass(frozen=True)
class Measured:
    """The two sides of one method.

    Attributes:
        precision: None where a side has no EPR+ at all.
        effect_per_unit_strength: None where no concept reached the effect on both sides.
        base: EPR+ back from the mean on the gate's scale.
        head: likewise.
        lost: concepts that every fit of the base reached and no fit of the head.
        undefined: side without a number; None where both have one.
        reached: whether either side reached the effect anywhere: else nothing was measured.
        concepts: number of concepts.
        fits: number of paired fits.
    """

    precision: Effect | None
    effect_per_unit_strength: Effect | None = None
    base: float | None = None
    head: float | None = None
    lost: tuple[str, ...] = ()
    undefined: Undefined | None = None
    reached: bool = True
    concepts: int = 0
    fits: int = 0

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The tests that were made."""
        return tuple(e for e in (self.precision, self.effect_per_unit_strength) if e is not None)


def measure(
    base: FitScoreMatrix, head: FitScoreMatrix, seed: int, stochastic: bool = False
) -> Measured:
    """Compare two sides.

    Args:
        base: F fits on C concepts and I images.
        head: the same fits, concepts and images of other code.
        seed: of the resamples of images.
        stochastic: whether the fit is known to use random numbers.
    """
    fits, concepts = base.reached.shape
    undefined = _undefined(base, head)
    if undefined is not None:
        return Measured(None, None, base.mean_epr_plus(), head.mean_epr_plus(),
                        undefined=undefined, concepts=concepts, fits=fits)  # fmt: skip
    stochastic = stochastic or not (_alike(base.precision) and _alike(head.precision))
    sides = base.effect_per_unit_strength, head.effect_per_unit_strength
    both: Mask = np.asarray(np.isfinite(sides).all((0, 1)))

    def effect(quantity: Quantity, kept: Mask) -> Effect | None:
        if not kept.any():
            return None
        if stochastic:
            return _by_fits(quantity, base, head, kept)
        return _by_images(quantity, base, head, kept, seed)

    return Measured(
        precision=effect("precision", np.full(concepts, True)),
        effect_per_unit_strength=effect("effect_per_unit_strength", both),
        base=base.mean_epr_plus(),
        head=head.mean_epr_plus(),
        lost=_lost(base, head, stochastic),
        reached=bool(base.reached.any() or head.reached.any()),
        concepts=concepts,
        fits=fits,
    )


def _undefined(base: FitScoreMatrix, head: FitScoreMatrix) -> Undefined | None:
    bare = [not np.isfinite(side.precision).all() for side in (base, head)]
    if all(bare):
        return "both"
    return "base" if bare[0] else "head" if bare[1] else None


def _alike(scores: Array) -> bool:
    """Whether all fits [F, C] have the same scores."""
    return bool(np.allclose(scores, scores[:1], rtol=0, atol=ALIKE, equal_nan=True))


def _lost(base: FitScoreMatrix, head: FitScoreMatrix, stochastic: bool) -> tuple[str, ...]:
    """Concepts lost in every fit; a few fits that differ may all have missed by chance."""
    if stochastic and len(base.reached) < MIN_FITS:
        return ()
    lost = np.asarray(base.reached.all(0) & ~head.reached.any(0))
    return tuple(name for name, gone in zip(base.concepts, lost, strict=True) if gone)


def _by_fits(quantity: Quantity, base: FitScoreMatrix, head: FitScoreMatrix, kept: Mask) -> Effect:
    """Student's t over paired fits. Source: Student 1908."""
    differences = (getattr(head, quantity) - getattr(base, quantity))[:, kept]
    value, n = float(differences.mean()), len(differences)
    if n < MIN_FITS:
        reason = f"{n} paired fits of a method whose fits differ, {MIN_FITS} are needed"
        return Effect(quantity=quantity, log_ratio=value, varies_by="fits", n=n, reason=reason)
    sd = fit_spread(differences).sd or 0.0
    noise = Noise(((sd / math.sqrt(n), n - 1),)) if sd > ALIKE else Noise(reason="nothing varies")
    return _effect(quantity, value, noise, "fits", n)


def _by_images(
    quantity: Quantity,
    base: FitScoreMatrix,
    head: FitScoreMatrix,
    kept: Mask,
    seed: int,
) -> Effect:
    """Student's interval with the variance of paired resamples of the images."""
    weights = resampling_weights(base.images, RESAMPLES, seed)
    scores = (getattr(head, quantity) - getattr(base, quantity))[0, kept]
    with np.errstate(invalid="ignore"):  # undefined on both sides of a resample
        resampled = head.weighted(quantity, weights) - base.weighted(quantity, weights)
    dataset = base.matrix.concepts[0].key[0]
    design = Design((dataset,) * base.images, (dataset,) * len(scores))
    noise = noise_here(scores, resampled[:, 0, kept], design)
    return _effect(quantity, float(scores.mean()), noise, "images", base.images)


def _effect(
    quantity: Quantity, value: float, noise: Noise, by: Literal["images", "fits"], n: int
) -> Effect:
    bounds, p = noise.interval(value, 1 - 2 * ALPHA), noise.p_value(value)
    if bounds is not None and p is not None:
        worse = p / 2 if value < 0 else 1 - p / 2
        return Effect(quantity=quantity, log_ratio=value, low=bounds[0], high=bounds[1],
                      p=worse, p_better=1 - worse, varies_by=by, n=n)  # fmt: skip
    if noise.reason == "nothing varies":
        return Effect(
            quantity=quantity, log_ratio=value, low=value, high=value, p=float(value >= -ALIKE),
            p_better=float(value <= ALIKE), varies_by="nothing", n=n,
        )  # fmt: skip
    return Effect(quantity=quantity, log_ratio=value, varies_by=by, n=n, reason=noise.reason)
