"""Numbers on the command line: finite, and within bounds that what takes them can bear.

click's own ranges let "nan" through, and an open end lets through what overflows hours later.
"""

from __future__ import annotations

import math
from typing import Any

import click

MOST = 10**9
"""Of anything that is counted."""

MOST_JOBS = 10_000
"""Processes, of a machine or a cluster."""


class Amount(click.FloatRange):
    """A finite number between two bounds, both within.

    Args:
        least: the smallest.
        most: the greatest.
    """

    def __init__(self, least: float, most: float) -> None:
        super().__init__(min=least, max=most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no amount.", param, ctx)
        return number


class Count(click.IntRange):
    """A whole number between two bounds, both within.

    Args:
        least: the smallest.
        most: the greatest.
    """

    def __init__(self, least: int = 1, most: int = MOST) -> None:
        super().__init__(min=least, max=most)


SEED = Count(0, 2**63 - 1)
"""A run seed: what 64 bits hold, in files of any format."""
