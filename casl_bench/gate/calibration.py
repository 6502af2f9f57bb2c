"""How much a cell varies where nothing changed (A/A), and whether a loss would show in that.

Both sides of an A/A run are drawn from the fits that a run has stored, each concept by itself, as
its fits share no random numbers with another's. Images are drawn again, too, the same ones for both
sides. What is drawn from F fits has but (F - 1) / F of their variance; deviations from their mean
are stretched by that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from casl_bench.core.content_hash import hash_json
from casl_bench.gate.measure import ALIKE
from casl_bench.gate.method_board import MethodBoard, method_board
from casl_bench.gate.precision_scale import from_scale, to_scale
from casl_bench.gate.run_side import CellName, RunSide
from casl_bench.gate.verdict import ALPHA, LOSS, MIN_FITS, TOLERATED
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.intervals import resampling_weights

MIN_POWER = 0.5
"""A cell in which a 10 % loss is seen less often than this is not gated."""


@dataclass(frozen=True)
class CellNoise:
    """Of one (data set, method).

    Attributes:
        sd: of the mean log ratio of one pair of fits, nothing changed.
        false_alarms: share of A/A runs that would be red, of this cell by itself.
        power: share of runs with a 10 % loss that would be.
        fits: stored ones that runs were drawn from.
        runs: how many were drawn.
    """

    sd: float
    false_alarms: float
    power: float
    fits: int
    runs: int


@dataclass(frozen=True)
class Calibration:
    """Noise of all cells of a run.

    Attributes:
        cells: cell → its noise; those whose fits tell it.
        fits: paired fits of a run that was imagined.
    """

    cells: Mapping[CellName, CellNoise]
    fits: int

    def why_blind(self, name: CellName, fits: int) -> str | None:
        """Why a cell cannot be gated; None if it can.

        Args:
            name: of the cell.
            fits: paired ones that the verdict would rest on.
        """
        noise = self.cells.get(name)
        if noise is None:
            return "A/A: the noise of a single fit is not known"
        if noise.sd > ALIKE and fits < MIN_FITS:
            return f"A/A: fits differ, {MIN_FITS} paired ones are needed and {fits} are there"
        if noise.power < MIN_POWER:
            return f"A/A: a 10 % loss would be seen in {100 * noise.power:.0f} % of runs"
        return None


def calibrate(side: RunSide, runs: int, fits: int = MIN_FITS) -> Calibration:
    """Draw A/A runs from every cell of a run.

    Args:
        side: the run; a method needs two fits or more.
        runs: A/A runs to draw, and as many with a loss.
        fits: paired fits of each.
    """
    cells = {}
    for name, concepts in side.edits.items():
        done = {
            c: own for c, records in concepts.items()
            if (own := {k: r for k, r in records.items() if r.status == "done" and r.levels})
        }  # fmt: skip
        common = sorted(set.intersection(*map(set, done.values()))) if done else []
        if len(common) < 2:
            continue
        board = method_board(side, done, common)
        seed = int(hash_json([side.records[0].record_id, *name])[:15], 16)
        cells[name] = cell_noise(board, seed, runs, fits)
    return Calibration(cells, fits)


def cell_noise(board: MethodBoard, seed: int, runs: int, fits: int = MIN_FITS) -> CellNoise:
    """Noise of one method, from its stored fits.

    Args:
        board: F >= 2 fits.
        seed: of what is drawn.
        runs: how many A/A runs.
        fits: paired fits of each.
    """
    stored = StoredFits.of(board, seed, runs)
    rng = np.random.default_rng(seed)
    same = stored.log_ratios(rng, fits).mean(2)
    lossy = stored.log_ratios(rng, fits, loss=TOLERATED).mean(2)
    return CellNoise(
        sd=float(same.std(ddof=1)),
        false_alarms=float(red(same).mean()),
        power=float(red(lossy).mean()),
        fits=stored.scores.shape[1],
        runs=runs,
    )


@dataclass(frozen=True)
class StoredFits:
    """Scores to draw runs from.

    Attributes:
        scores: [R, F, C] on the gate's scale, of R draws of the images.
    """

    scores: Array

    @classmethod
    def of(cls, board: MethodBoard, seed: int, runs: int) -> StoredFits:
        """F fits under `runs` resamples of the images; resamples without a number are drawn anew.

        Args:
            board: the fits.
            seed: of the images.
            runs: R.
        """
        scores = board.precision(resampling_weights(board.images, 2 * runs, seed))
        return cls(scores[np.isfinite(scores).all((1, 2))][:runs])

    def log_ratios(self, rng: np.random.Generator, fits: int, loss: float = 0.0) -> Array:
        """[R, fits, C] of a head over a base that differ by chance, and by a planted change.

        Args:
            rng: of the fits.
            fits: paired ones a run.
            loss: log ratio of the change, e.g. log 0.9.
        """
        runs, stored, concepts = self.scores.shape
        mean = self.scores.mean(1, keepdims=True)
        stretched = mean + math.sqrt(stored / (stored - 1)) * (self.scores - mean)
        place = np.arange(runs)[:, None, None], np.arange(concepts)[None, None]
        base, head = (
            stretched[place[0], rng.integers(stored, size=(runs, fits, concepts)), place[1]]
            for _ in range(2)
        )
        ratios: Array = to_scale(from_scale(head) * math.exp(loss)) - base
        return ratios


def red(thetas: Array) -> NDArray[np.bool_]:
    """[R] whether a cell by itself would be red, from its fits' log ratios [R, K]."""
    found: NDArray[np.bool_] = (p_worse(thetas) <= ALPHA) & (thetas.mean(1) < LOSS)
    return found


def p_worse(thetas: Array) -> Array:
    """[R] one-sided p-values of Student's t over K fits, [R, K]; as `measure` has them."""
    mean, k = thetas.mean(1), thetas.shape[1]
    error = thetas.std(1, ddof=1) / math.sqrt(k)
    with np.errstate(divide="ignore", invalid="ignore"):
        p: Array = stdtr(k - 1, mean / error)
    return np.where(error <= ALIKE, (mean >= -ALIKE).astype(float), p)
