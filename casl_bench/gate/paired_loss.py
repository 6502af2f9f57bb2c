"""What a change of code did to fits of the same seeds, and how often new fits would show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from casl_bench.core.errors import UsageError
from casl_bench.gate.calibration import red
from casl_bench.gate.method_board import MethodBoard
from casl_bench.gate.run_side import CellName
from casl_bench.gate.verdict import MIN_FITS

_RUNS = 20_000
"""Runs of normal log ratios: a rate of one half has a standard error of 0.4 %."""


@dataclass(frozen=True)
class PairedLoss:
    """What a change did to fits of the same seeds.

    Attributes:
        log_ratio: of precision, head over base, mean over concepts and pairs.
        sd: of the mean over concepts, between pairs.
        pairs: how many.
        power: share of runs with other seeds that would fail, were their log ratios normal.
    """

    log_ratio: float
    sd: float
    pairs: int
    power: float


def paired_loss(
    base: MethodBoard, head: MethodBoard, seed: int, fits: int = MIN_FITS
) -> PairedLoss:
    """The measured change, and how often new fits that it changes as much would show it.

    A run drawn from few stored fits holds copies and so varies less than a run of new ones;
    normal log ratios of the measured mean and standard deviation do not.

    Args:
        base: F >= 2 fits.
        head: the fits of the same seeds, of other code.
        seed: of what is drawn.
        fits: paired fits of a run.
    """
    changes = (head.whole_precision - base.whole_precision).mean(1)
    mean, sd = float(changes.mean()), float(changes.std(ddof=1))
    drawn = np.random.default_rng(seed).normal(mean, sd, (_RUNS, fits))
    return PairedLoss(mean, sd, len(changes), float(red(drawn).mean()))


def check_pairs(name: CellName, base: MethodBoard, head: MethodBoard) -> None:
    """Raises UsageError unless both sides have the same concepts and fits."""
    for what, of in (("concepts", _concepts), ("fits", _fits)):
        if of(base) != of(head):
            raise UsageError(
                f"the runs have other {what} of {name[0]}/{name[1]}",
                where=f"{', '.join(of(base))} against {', '.join(of(head))}",
                mend="run both on the same concepts with the same --fit-seeds",
            )


def _concepts(board: MethodBoard) -> tuple[str, ...]:
    return tuple(concept.key[1] for concept in board.board.concepts)


def _fits(board: MethodBoard) -> tuple[str, ...]:
    return tuple(board.board.concepts[0].methods)
