"""Untrained networks whose weights are always the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from casl_bench.core.seeding import derive_seed

T = TypeVar("T")


def seeded(what: str, purpose: str, build: Callable[[], T]) -> T:
    """Build from random numbers that depend on `what` and `purpose` alone.

    The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, what, purpose))
        return build()
