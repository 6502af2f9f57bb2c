"""Options that name a folder of this machine, where an address would make one called `s3:`."""

from __future__ import annotations

import os
from typing import Any

import click

from casl_bench.core.errors import UsageError

MEND = "give a folder; casl-bench push copies a run to an address"


def is_address(text: str) -> bool:
    """Whether it names a place elsewhere, such as `s3://bucket/run`."""
    return "://" in text


def local(text: str, where: str) -> str:
    """The text, unless it is an address. Raises UsageError, which names `where`."""
    if is_address(text):
        raise UsageError(f"'{text}' is no folder", where=where, mend=MEND)
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
            self.fail(f"'{os.fspath(value)}' is no folder; {MEND}", param, ctx)
        return super().convert(value, param, ctx)
