"""The same numbers in every process: seeds that belong to a purpose and an image, one thread."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor


def derive_seed(run_seed: int, purpose: str, *keys: str | int) -> int:
    """A 63-bit seed from (run seed, purpose, keys) by SHA-256.

    Stable over Python versions, platforms, batch sizes, worker counts and method order.
    """
    text = "\x1f".join([str(run_seed), purpose, *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(run_seed: int, purpose: str, *keys: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`."""
    return torch.Generator("cpu").manual_seed(derive_seed(run_seed, purpose, *keys))


def image_noise(
    shape: Sequence[int], image_ids: Sequence[str], run_seed: int, purpose: str
) -> Tensor:
    """Standard normal noise, one independent stream an image.

    Args:
        shape: shape of one image's noise, e.g. (3, 64, 64).
        image_ids: one id an image.
        run_seed: the run's seed.
        purpose: what the noise is for; another purpose is another stream.

    Returns:
        [len(image_ids), *shape], float32, on the CPU.
    """
    rows = [torch.randn(tuple(shape), generator=generator(run_seed, purpose, i)) for i in image_ids]
    return torch.stack(rows) if rows else torch.empty(0, *shape)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute the block on one CPU thread: the last bits of a sum depend on their number."""
    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
