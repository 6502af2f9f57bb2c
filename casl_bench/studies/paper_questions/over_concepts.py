"""Numbers of many concepts → one, with an interval over concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from casl_bench.comparison.signed_log import signed_exp
from casl_bench.metrics.intervals import (
    LEVEL,
    RESAMPLES,
    percentile_interval,
    resampling_weights,
    student_margin,
)
from casl_bench.reports.markdown import DASH, number


@dataclass(frozen=True)
class Over:
    """One number over n concepts; without an interval where there are fewer than two, or none."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """As a table shows it."""
        if self.value is None:
            return DASH
        text = number(scale * self.value, digits)
        if self.low is None or self.high is None:
            return text
        return f"{text} [{number(scale * self.low, digits)}, {number(scale * self.high, digits)}]"

    @property
    def above_zero(self) -> bool | None:
        """Which side of 0 all of the interval lies on; None where it holds 0 or is not there."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return self.low > 0


def mean_over(values: Sequence[float], level: float = LEVEL) -> Over:
    """The mean with Student's t interval.

    Args:
        values: one a concept.
        level: nominal coverage, in (0, 1).
    """
    n = len(values)
    if not n:
        return Over(None, None, None, 0)
    centre = float(np.mean(values))
    half = float(student_margin(np.array(values), level)) if n > 1 else 0.0
    if half == 0:
        return Over(centre, None, None, n)
    return Over(centre, centre - half, centre + half, n)


def from_signed_log(found: Over) -> Over:
    """A mean of signed logs on the scale of EPR+."""
    value, low, high = (None if x is None else signed_exp(x) for x in
                        (found.value, found.low, found.high))  # fmt: skip
    return Over(value, low, high, found.n)


def share_of(part: Sequence[float], whole: Sequence[float], seed: int = 0) -> Over:
    """sum_c part_c / sum_c whole_c with an interval from resampled concepts.

    The ratio of means: a concept on which the whole is next to nothing would blow up a mean of
    ratios.

    Args:
        part: one a concept.
        whole: likewise, in the same order.
        seed: of the resamples.
    """
    n, columns = len(part), np.stack([part, whole], axis=1)
    if not n or not columns[:, 1].sum() > 0:
        return Over(None, None, None, n)
    value = float(columns[:, 0].sum() / columns[:, 1].sum())
    if n < 2:
        return Over(value, None, None, n)
    draws = resampling_weights(n, RESAMPLES, seed) @ columns
    with np.errstate(divide="ignore", invalid="ignore"):  # not finite: left out
        interval = percentile_interval(draws[:, 0] / draws[:, 1], LEVEL, n)
    low, high = interval or (None, None)
    return Over(value, low, high, n)
