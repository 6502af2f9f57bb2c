"""From how many edits on a method that costs more beforehand is the cheaper one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL, RESAMPLES, resampling_weights
from casl_bench.results.score_table import Array

Verdict = Literal["always", "never", "from", "up to", "open"]


@dataclass(frozen=True)
class Spending:
    """What one method costs on each of C concepts, in any one unit.

    Attributes:
        fixed: [C] before the first edit: its share of the set-up, and its fit.
        edit: [C] of one edit of one image at one strength.
    """

    fixed: Array
    edit: Array

    def __post_init__(self) -> None:
        """Raises InputError if the two differ in length, are empty or not finite and >= 0."""
        if self.fixed.shape != self.edit.shape or self.fixed.ndim != 1 or not len(self.fixed):
            raise InputError("spending needs as many fixed costs as costs of an edit")
        if not all(np.isfinite(x).all() and (x >= 0).all() for x in (self.fixed, self.edit)):
            raise InputError("costs must be finite and not negative")


@dataclass(frozen=True)
class BreakEven:
    """When a method costs less than another.

    Attributes:
        verdict: "always", "never", "from" that many edits of a concept on, "up to" so many, or
            "open": other concepts like these could say otherwise.
        edits: how many; None unless "from" or "up to".
        low: of the interval over concepts; None likewise, or with one concept.
        high: likewise.
    """

    verdict: Verdict
    edits: float | None = None
    low: float | None = None
    high: float | None = None


def break_even(a: Spending, b: Spending, seed: int = 0, level: float = LEVEL) -> BreakEven:
    """N with F_a + N e_a = F_b + N e_b, F and e being means over concepts: where a overtakes b.

    Concepts are resampled, the same ones for both methods. The verdict stands where `level` of the
    resamples share it.

    Args:
        a: the method asked about.
        b: the other, on the same concepts in the same order.
        seed: of the resamples.
        level: nominal coverage, in (0, 1).

    Raises:
        InputError: if they are not of the same concepts.
    Source: ours.
    """
    count = len(a.fixed)
    if count != len(b.fixed):
        raise InputError(f"two methods on {count} and {len(b.fixed)} concepts cannot be compared")
    columns = np.stack([a.fixed - b.fixed, b.edit - a.edit], axis=1)
    dearer, saved = columns.mean(0)
    verdict = _verdict(float(dearer), float(saved))
    low = high = None
    if count >= 2:
        draws = resampling_weights(count, RESAMPLES, seed) @ columns
        same = np.array([_verdict(*map(float, draw)) == verdict for draw in draws])
        if same.mean() < level:
            return BreakEven("open")
        if verdict in ("from", "up to"):
            tail = (1 - level) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                crossings = draws[same, 0] / draws[same, 1]
            low, high = map(float, np.quantile(crossings, [tail, 1 - tail]))
    if verdict not in ("from", "up to"):
        return BreakEven(verdict)
    return BreakEven(verdict, float(dearer / saved), low, high)


def _verdict(dearer: float, saved: float) -> Verdict:
    """From what a costs more beforehand, and saves an edit."""
    if dearer <= 0:
        return "always" if saved >= 0 else "up to"
    return "from" if saved > 0 else "never"
