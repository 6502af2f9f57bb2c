"""Base and head of one method on the same images → log ratios with bounds and p-values.

Concepts are a fixed list that the gate asks about, so they are not resampled. What else varies
depends on the fit. A deterministic fit always gives the same edits: images vary, and one resample
of them weighs both sides and all concepts. A fit that uses random numbers gives other edits with
every seed, and varies mostly by that: the paired fits are the unit, with Student's interval of
their means over concepts. An image bootstrap of a single such fit would take the luck of the fit
for the change: 29 % false alarms where fits vary by 5 %.

No method declares which kind its fit is. Several fits of a run show it by their scores: where all
are alike, the fit is deterministic. A single fit is taken for deterministic unless the user names
the method.

`calibrate` samples A/A runs of a method's stored fits: how much it varies where nothing changed,
and whether a loss would show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from casl_bench.analysis.comparison import fit_sd
from casl_bench.analysis.uncertainty import Design, Noise, noise_here
from casl_bench.core.files import hash_json
from casl_bench.gate.run_side import (
    CellName,
    FitScoreMatrix,
    RunSide,
    from_scale,
    matched_fits,
    to_scale,
)
from casl_bench.gate.verdict import ALPHA, LOSS, MIN_FITS, TOLERATED, Effect, Quantity
from casl_bench.metrics.bootstrap import RESAMPLES, resampling_weights
from casl_bench.metrics.edit_scores import Array

Mask = NDArray[np.bool_]
ALIKE = 1e-9
"""Differences below this are the rounding of sums."""

Undefined = Literal["base", "head", "both"]


@dataclass(frozen=True)
class Measured:
    """The two sides of one method; `base` and `head` are EPR+ as in `CellVerdict`.

    Attributes:
        precision: None where a side has no EPR+ at all.
        effect_per_unit_strength: None where no concept reached the effect on both sides.
        lost: concepts that every fit of the base reached and no fit of the head.
        undefined: side without a number; None where both have one.
        reached: whether either side reached the effect anywhere: else nothing was measured.
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
    """Compare two sides: the same fits, concepts and images of other code.

    `seed` is of the resamples of images; `stochastic` fits are known to use random numbers.
    """
    fits, concepts = base.reached.shape
    bare = [not np.isfinite(side.precision).all() for side in (base, head)]
    if any(bare):
        undefined: Undefined = "both" if all(bare) else "base" if bare[0] else "head"
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
    sd = fit_sd(differences) or 0.0
    noise = Noise(((sd / math.sqrt(n), n - 1),)) if sd > ALIKE else Noise(reason="nothing varies")
    return _effect(quantity, value, noise, "fits", n)


def _by_images(
    quantity: Quantity, base: FitScoreMatrix, head: FitScoreMatrix, kept: Mask, seed: int
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


# A/A runs: two samples of the stored fits of one run, nothing changed.

MIN_POWER = 0.5
"""A cell in which a 10 % loss would be seen less often than this is not gated."""


@dataclass(frozen=True)
class CellNoise:
    """Noise of one (data set, method).

    Attributes:
        sd: of the mean log ratio of one pair of fits, nothing changed.
        false_alarms: share of A/A runs in which this cell, by itself, would fail.
        power: share of runs with a 10 % loss in which it would.
        fits: stored fits that runs were sampled from.
        runs: sampled runs.
    """

    sd: float
    false_alarms: float
    power: float
    fits: int
    runs: int


@dataclass(frozen=True)
class Calibration:
    """Noise of all cells that have several fits, in runs of `MIN_FITS` paired fits."""

    cells: Mapping[CellName, CellNoise]

    def why_underpowered(self, name: CellName, fits: int) -> str | None:
        """Why a verdict on `fits` paired fits of a cell would mean nothing; None if it would."""
        noise = self.cells.get(name)
        if noise is None:
            return "A/A: the noise of a single fit is not known"
        if noise.sd > ALIKE and fits < MIN_FITS:
            return f"A/A: fits differ, {MIN_FITS} paired ones are needed and {fits} are there"
        if noise.power < MIN_POWER:
            return f"A/A: a 10 % loss would be seen in {100 * noise.power:.0f} % of runs"
        return None

    def notes(self) -> list[str]:
        """One sentence per cell."""
        return [
            f"A/A {dataset}/{method}: sd {noise.sd:.3f}, "
            f"false alarms {100 * noise.false_alarms:.1f} %, "
            f"a 10 % loss seen in {100 * noise.power:.0f} % of {noise.runs} runs "
            f"with {MIN_FITS} paired fits sampled from {noise.fits}"
            for (dataset, method), noise in self.cells.items()
        ]


def calibrate(side: RunSide, runs: int) -> Calibration:
    """Sample `runs` A/A runs, and as many with a loss, of every method of two fits or more."""
    cells = {}
    for name, concepts in side.edits.items():
        done, common = matched_fits(concepts)
        if len(common) >= 2:
            seed = int(hash_json([side.records[0].record_id, *name])[:15], 16)
            cells[name] = _noise(FitScoreMatrix.read(side, done, common), seed, runs)
    return Calibration(cells)


def _noise(matrix: FitScoreMatrix, seed: int, runs: int) -> CellNoise:
    scores = matrix.weighted("precision", resampling_weights(matrix.images, 2 * runs, seed))
    # Resamples without a number are left out; there are twice as many as needed.
    scores = scores[np.isfinite(scores).all((1, 2))][:runs]
    rng = np.random.default_rng(seed)
    same = resampled_log_ratios(scores, rng, MIN_FITS).mean(2)
    lossy = resampled_log_ratios(scores, rng, MIN_FITS, loss=TOLERATED).mean(2)
    return CellNoise(
        sd=float(same.std(ddof=1)),
        false_alarms=float(would_fail(same).mean()),
        power=float(would_fail(lossy).mean()),
        fits=scores.shape[1],
        runs=runs,
    )


def resampled_log_ratios(
    scores: Array, rng: np.random.Generator, fits: int, loss: float = 0.0
) -> Array:
    """[R, fits, C] log ratios of a head over a base that differ by chance and a simulated loss.

    Scores are [R, F, C] of F >= 2 stored fits on the gate's scale, under R resamples of images; the
    loss is a log ratio, e.g. log 0.9.
    """
    runs, stored, concepts = scores.shape
    mean = scores.mean(1, keepdims=True)
    # Fits sampled from F stored ones vary by (F - 1) / F of what new ones would.
    stretched = mean + math.sqrt(stored / (stored - 1)) * (scores - mean)
    run, concept = np.arange(runs)[:, None, None], np.arange(concepts)[None, None]
    base, head = (
        stretched[run, rng.integers(stored, size=(runs, fits, concepts)), concept] for _ in range(2)
    )
    ratios: Array = to_scale(from_scale(head) * math.exp(loss)) - base
    return ratios


def would_fail(log_ratios: Array) -> NDArray[np.bool_]:
    """[R] whether a cell by itself would fail, from its fits' mean log ratios [R, K]."""
    found: NDArray[np.bool_] = (p_worse(log_ratios) <= ALPHA) & (log_ratios.mean(1) < LOSS)
    return found


def p_worse(log_ratios: Array) -> Array:
    """[R] one-sided p-values of Student's t over K fits, [R, K], as `measure` has them."""
    mean, k = log_ratios.mean(1), log_ratios.shape[1]
    error = log_ratios.std(1, ddof=1) / math.sqrt(k)
    with np.errstate(divide="ignore", invalid="ignore"):
        p: Array = stdtr(k - 1, mean / error)
    return np.where(error <= ALIKE, (mean >= -ALIKE).astype(float), p)
