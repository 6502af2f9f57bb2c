"""How much a method varies where nothing changed (A/A runs), and whether a loss would show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from casl_bench.core.files import hash_json
from casl_bench.gate.log_ratio import ALIKE
from casl_bench.gate.run_side import CellName, FitScoreMatrix, RunSide, from_scale, to_scale
from casl_bench.gate.verdict import ALPHA, LOSS, MIN_FITS, TOLERATED
from casl_bench.metrics.bootstrap import resampling_weights
from casl_bench.metrics.edit_scores import Array

MIN_POWER = 0.5
"""A cell in which a 10 % loss would be seen less often than this is not gated."""


@dataclass(frozen=True)
class CellNoise:
    """Noise of one (data set, method).

    Attributes:
        sd: of the mean log ratio of one pair of fits, nothing changed.
        false_alarms: share of A/A runs in which this cell, by itself, would fail.
        power: share of runs with a 10 % loss in which it would.
        fits: number of stored fits that runs were sampled from.
        runs: number of sampled runs.
    """

    sd: float
    false_alarms: float
    power: float
    fits: int
    runs: int


@dataclass(frozen=True)
class Calibration:
    """Noise of all cells that have several fits.

    Attributes:
        cells: cell → its noise.
        fits: number of paired fits of a sampled run.
    """

    cells: Mapping[CellName, CellNoise]
    fits: int

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
            f"with {self.fits} paired fits sampled from {noise.fits}"
            for (dataset, method), noise in self.cells.items()
        ]


def calibrate(side: RunSide, runs: int, fits: int = MIN_FITS) -> Calibration:
    """Sample A/A runs of every method that has two fits or more.

    Args:
        side: the run.
        runs: number of A/A runs, and of runs with a loss.
        fits: paired fits of each.
    """
    cells = {}
    for name, concepts in side.edits.items():
        done = {
            c: own for c, records in concepts.items()
            if (own := {k: r for k, r in records.items() if r.status == "done" and r.levels})
        }  # fmt: skip
        common = sorted(set.intersection(*map(set, done.values()))) if done else []
        if len(common) >= 2:
            seed = int(hash_json([side.records[0].record_id, *name])[:15], 16)
            cells[name] = _noise(FitScoreMatrix.read(side, done, common), seed, runs, fits)
    return Calibration(cells, fits)


def _noise(matrix: FitScoreMatrix, seed: int, runs: int, fits: int) -> CellNoise:
    scores = matrix.weighted("precision", resampling_weights(matrix.images, 2 * runs, seed))
    # Resamples without a number are left out; there are twice as many as needed.
    scores = scores[np.isfinite(scores).all((1, 2))][:runs]
    rng = np.random.default_rng(seed)
    same = resampled_log_ratios(scores, rng, fits).mean(2)
    lossy = resampled_log_ratios(scores, rng, fits, loss=TOLERATED).mean(2)
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

    Args:
        scores: [R, F, C] of F >= 2 stored fits on the gate's scale, under R resamples of images.
        rng: samples the fits.
        fits: paired fits per run.
        loss: log ratio, e.g. log 0.9.
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
