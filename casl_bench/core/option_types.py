"""Numbers and paths on the command line: finite, of this machine, and what they are used for.

click's own ranges let "nan" through, and an open end lets through what overflows hours later.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from pathlib import Path
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

HINT = "give a place on this machine"
"""An address would make a folder called `s3:`."""


def local_path(text: str, where: str = "", hint: str = "give a path without ~") -> Path:
    """The place that a user names, `~` being their home folder.

    Raises UsageError, naming `where`, for an empty text, an address such as `s3://bucket/run`, a
    pipe or a device (reading a pipe waits for ever), and for `~` where no home folder is known;
    `hint` says what to do then.
    """
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is no path", where=where, hint=HINT)
    if "://" in text:
        raise UsageError(f"'{text}' is no file or folder", where=where, hint=HINT)
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError("no home folder", where=where or text, hint=hint) from error
    with contextlib.suppress(OSError):  # what it is opened for says why it cannot be
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UsageError(f"'{text}' is a pipe or a device", where=where, hint=HINT)
    return path


def expand_home(text: str, where: str = "") -> str:
    """A text that may be a path or the name of something elsewhere; `~` begins paths alone."""
    return str(local_path(text, where)) if text.startswith("~") else text


class LocalPath(click.Path):
    """`click.Path` for whatever is a `local_path`; the value is a `Path`."""

    def __init__(self, **settings: bool) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The path."""
        try:
            path = local_path(os.fspath(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return super().convert(path, param, ctx)
