"""Moments at which runs are killed: others every time."""

from __future__ import annotations

import os
import random
import secrets

import pytest

SEED_VARIABLE = "CASL_BENCH_KILL_SEED"


@pytest.fixture
def moments() -> random.Random:
    """Draws them. What it was seeded by is told where a test fails, and may be given."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))
    print(f"the same moments again: {SEED_VARIABLE}={seed}")
    return random.Random(seed)
