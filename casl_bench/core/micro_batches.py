"""Frozen networks see batches of one size only, so that a row's numbers never depend on its batch.

CPU kernels choose their algorithm, and with it the order of a sum, by the shape of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_micro_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Apply a row-wise function in chunks of exactly `size`, the last filled with its last row.

    Args:
        function: [size, …] → [size, …].
        x: [n, …], n >= 1.
        size: rows a chunk.

    Returns:
        [n, …].
    """
    parts = []
    for chunk in x.split(size):
        missing = size - len(chunk)
        if missing:
            filling = chunk[-1:].expand(missing, *chunk.shape[1:])
            parts.append(function(torch.cat([chunk, filling]))[: len(chunk)])
        else:
            parts.append(function(chunk))
    return torch.cat(parts)
