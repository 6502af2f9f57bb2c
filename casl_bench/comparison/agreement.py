"""Do two scorers put the methods in the same order?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import check_array


@dataclass(frozen=True)
class Agreement:
    """Of two orders.

    Attributes:
        tau: Kendall's tau-b in [-1, 1]; None where either order has a single place, or n < 2.
        n: what is put in order.
    """

    tau: float | None
    n: int


def kendall_tau(a: ArrayLike, b: ArrayLike) -> Agreement:
    """sum_ij x_ij y_ij / sqrt(sum_ij x_ij² sum_ij y_ij²), with x_ij = sign(a_i - a_j), y_ij of b.

    Pairs in the same order less pairs in the opposite order, of those that could be in one: ties
    are taken out on either side.

    Args:
        a: [n] scores or ranks by one scorer, finite.
        b: [n] by another, the same way round.

    Raises:
        InputError: on different lengths, NaN or infinity.
    Source: Kendall 1945.
    """
    first, second = check_array("a", a, 1), check_array("b", b, 1)
    if len(first) != len(second):
        raise InputError(f"two orders of the same, got {len(first)} and {len(second)} values")
    x, y = (np.sign(v[:, None] - v[None, :]) for v in (first, second))
    # Whole numbers: a perfect agreement is 1 exactly.
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return Agreement(float((x * y).sum()) / scale if scale > 0 else None, len(first))
