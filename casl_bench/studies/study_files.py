"""The records of a study as a file: one JSON object a line, refused with the reason where wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import parse_json
from casl_bench.results.record import Frozen

Parsed = TypeVar("Parsed")


def to_lines(rows: Iterable[Frozen]) -> str:
    """One line each; equal rows give equal bytes."""
    dumped = (row.model_dump(mode="json") for row in rows)
    return "".join(
        json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in dumped
    )


def parse_lines(text: str, parse: Callable[[list[Any]], Parsed], where: str = "") -> Parsed:
    """What `parse` makes of the lines' JSON values.

    Args:
        text: as from `to_lines`.
        parse: may raise ValueError, ValidationError, KeyError or TypeError.
        where: the text is from.

    Raises:
        InvalidBenchmarkError: on anything else.
    """
    try:
        return parse([parse_json(line) for line in text.splitlines()])
    except (ValueError, ValidationError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidBenchmarkError(
            f"not the records of a study: {reason}", where=where, mend="make them anew"
        ) from error


def read_text(path: Path, mend: str) -> str:
    """The text of a study's file.

    Raises:
        UsageError: there is none, or it is no text.
    """
    if not path.is_file():
        raise UsageError("no records of the study", where=str(path), mend=mend)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("not the records of a study", where=str(path), mend=mend) from error
