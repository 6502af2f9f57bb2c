"""Numbers on the command line: finite, and within bounds that what takes them can bear.

click's own ranges let "nan" through, and an open end lets through what overflows hours later.
"""

from __future__ import annotations

import math
import os
from typing import Any

import click

from casl_bench.core.errors import UsageError

MOST = 10**9
"""Of anything that is counted."""

MOST_JOBS = 10_000
"""Processes, of a machine or a cluster."""


class BoundedFloat(click.FloatRange):
    """A finite number between two bounds, both within."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__(min=least, max=most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no amount.", param, ctx)
        return number


class BoundedInt(click.IntRange):
    """A whole number between two bounds, both within."""

    def __init__(self, least: int = 1, most: int = MOST) -> None:
        super().__init__(min=least, max=most)


SEED = BoundedInt(0, 2**63 - 1)
"""A run seed: what 64 bits hold, in files of any format."""

HINT = "give a folder of this machine"
"""An address would make a folder called `s3:`."""


def is_address(text: str) -> bool:
    """Whether it names a place elsewhere, such as `s3://bucket/run`."""
    return "://" in text


def local(text: str, where: str) -> str:
    """The text; UsageError, which names `where`, if it is an address."""
    if is_address(text):
        raise UsageError(f"'{text}' is no folder", where=where, hint=HINT)
    return text


class LocalFolder(click.Path):
    """`click.Path` that refuses addresses."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The path."""
        if is_address(os.fspath(value)):
            self.fail(f"'{os.fspath(value)}' is no folder; {HINT}", param, ctx)
        return super().convert(value, param, ctx)
