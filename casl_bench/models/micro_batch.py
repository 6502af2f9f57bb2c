"""Networks run at one fixed batch size and on one thread, so an image's output depends on neither.

On a GPU they run in full float32 and with deterministic convolutions; `docs/performance.md` says
what may differ there all the same.

CPU kernels choose their algorithm, and with it the order of their sums, by the shape and the
memory layout of a batch. The place of a row within a batch of a given shape does not matter. So:
cut into contiguous batches of exactly `size` rows, fill the last one up, throw the filling away,
and an image's result is the same bit for bit whether it came alone or among a thousand. Sums over
another number of threads differ in their last bit, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

MICRO_BATCH = 16
"""Images in a pass of a scorer."""


def row_blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `count` rows in order."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def pad_rows(x: Tensor, size: int) -> Tensor:
    """Fill x [n, ...], 1 <= n <= size, up to `size` rows with copies of its last row.

    Contiguous, whatever the layout of x.
    """
    missing = size - len(x)
    filled = x if missing == 0 else torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
    return filled.contiguous()


def run_in_micro_batches(
    function: Callable[..., Sequence[Tensor]], size: int, *rows: Tensor
) -> tuple[Tensor, ...]:
    """Apply a function of row-wise tensors in batches of exactly `size` rows.

    All tensors have the same number n >= 1 of rows; so has each of those returned.
    """
    count = len(rows[0])
    parts = []
    for block in row_blocks(count, size):
        results = function(*(pad_rows(x[block], size) for x in rows))
        parts.append([r[: block.stop - block.start] for r in results])
    if len(parts) == 1:
        return tuple(parts[0])
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def in_micro_batches(
    function: Callable[[Tensor], Tensor], x: Tensor, size: int = MICRO_BATCH
) -> Tensor:
    """`run_in_micro_batches` for one tensor in and one out: x [n, …], n >= 1 → [n, …]."""
    return run_in_micro_batches(lambda rows: (function(rows),), size, x)[0]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread within the block, and on a GPU as `exact_on_gpu` says."""
    before = torch.get_num_threads()
    with threadpool_limits(1), exact_on_gpu():
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def exact_on_gpu() -> Iterator[None]:
    """No TF32 within the block, and convolutions that give the same bits each time.

    torch's own default multiplies in TF32 (10 bits of mantissa) in convolutions, and may choose
    another algorithm in each process.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings = [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False),
                (cudnn, "deterministic", True), (cudnn, "benchmark", False)]  # fmt: skip
    before = [getattr(module, name) for module, name, _ in settings]
    try:
        for module, name, value in settings:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(settings, before, strict=True):
            setattr(module, name, value)
