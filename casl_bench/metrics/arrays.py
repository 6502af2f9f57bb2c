"""Arrays that metrics accept: of the shape they say, and finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError

Array = NDArray[np.float64]


def check_array(
    name: str, values: ArrayLike, ndim: int, shape: tuple[int, ...] | None = None
) -> Array:
    """The values as float64.

    Raises:
        InputError: on another number of axes or shape, NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or (shape is not None and array.shape != shape):
        expected = f"shape {list(shape)}" if shape is not None else f"{ndim} axes"
        raise InputError(f"{name} has shape {list(array.shape)}, expected {expected}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity")
    return array
