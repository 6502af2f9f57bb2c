"""The scale on which the gate compares EPR+: a log ratio wherever there is one, and no holes.

A cell that reaches the effect has a positive EPR+, and two of them differ by a log ratio. A cell
that no longer reaches it, or goes the wrong way, has none. To leave it out of the mean would reward
it; to fail at once would turn red whenever one of five fits of a hard concept misses by chance. So
such cells get a place: not reached is 0, the wrong way is negative, and what a flip from one to the
other costs, some log(x / UNIT), enters the noise like any other difference.
"""

from __future__ import annotations

from casl_bench.comparison.signed_log import signed_exp, signed_log
from casl_bench.metrics.arrays import Array

UNIT = 0.1
"""EPR+ from which on the scale is logarithmic: a tenth of what a random direction has."""


def to_scale(precision: Array) -> Array:
    """sign(x) log(1 + |x| / UNIT) of x = EPR+: `signed_log` of EPR+ in tenths of random.

    Differences are log ratios, shortened by x / (x + UNIT): a loss of 10 % counts as 9.6 % at
    EPR+ 1 and as 9.98 % at 20.

    Args:
        precision: EPR+ of either sign, 0 where the effect was not reached.
    Source: ours.
    """
    scaled: Array = signed_log(precision / UNIT)
    return scaled


def from_scale(value: Array) -> Array:
    """EPR+ at a place of the scale: the inverse of `to_scale`."""
    precision: Array = signed_exp(value) * UNIT
    return precision
