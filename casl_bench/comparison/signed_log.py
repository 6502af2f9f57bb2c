"""The scale on which EPR+ of several concepts is averaged: logarithmic, through zero, signed."""

from __future__ import annotations

from typing import cast, overload

import numpy as np

from casl_bench.metrics.arrays import Array


@overload
def signed_log(x: float) -> float: ...
@overload
def signed_log(x: Array) -> Array: ...
def signed_log(x: float | Array) -> float | Array:
    """g(x) = sign(x) log(1 + |x|).

    A ratio's logarithm is what adds up, but a logarithm knows neither 0 nor the wrong way, and a
    cell without a number would have to be left out of the mean: whoever fails on hard concepts
    would then win. On this scale each cell has a place. g is strictly monotone, a cell that did not
    reach the effect is 0, and the wrong way is negative: wrong way < not reached < any positive
    value. So there is nothing to be gained by not reaching, and nothing by editing backwards.

    Args:
        x: EPR+, or another ratio of either sign; 0 for a cell that did not reach the effect. NaN
            stays NaN.

    Returns:
        About x near 0, about log(x) for large x.
    Source: ours; symmetric logarithms go back to Tukey's started logarithm, log(x + 1).
    """
    return cast("float | Array", np.sign(x) * np.log1p(np.abs(x)))


@overload
def signed_exp(y: float) -> float: ...
@overload
def signed_exp(y: Array) -> Array: ...
def signed_exp(y: float | Array) -> float | Array:
    """The inverse of `signed_log`: sign(y) (exp(|y|) - 1).

    Args:
        y: on the logarithmic scale, e.g. a mean over concepts or an end of its interval.

    Returns:
        On the scale of EPR+.
    Source: ours.
    """
    return cast("float | Array", np.sign(y) * np.expm1(np.abs(y)))
