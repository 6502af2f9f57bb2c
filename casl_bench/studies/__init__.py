"""Studies: a question each, answered by one command that leaves records and a page.

Nothing here marks a method. Below is the frame of a study: its records as JSON lines, and its page
made of them alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import parse_json, read_whole, write_bytes, write_text
from casl_bench.results.record import Frozen

Header = TypeVar("Header", bound=Frozen)
Row = TypeVar("Row")
Records = TypeVar("Records")

Name = Annotated[str, Field(pattern=r"^[\w .,:/+-]*$")]
"""Text in the records of a study that stands on its page as it is: it can be no markup."""


def to_lines(rows: Iterable[Frozen]) -> str:
    """One JSON object per line; equal rows give equal bytes."""
    dumped = (row.model_dump(mode="json") for row in rows)
    return "".join(
        json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in dumped
    )


def parse_study(
    text: str, header: type[Header], rows: TypeAdapter[Row], where: str = ""
) -> tuple[Header, list[Row]]:
    """Header and rows, as from `to_lines`.

    Raises InvalidBenchmarkError where the first line is no such header, or another no such row.
    """
    # Not splitlines: a name may hold other line separators.
    first, *rest = text.rstrip("\n").split("\n")
    try:
        return (
            header.model_validate(parse_json(first)),
            [rows.validate_python(parse_json(line)) for line in rest],
        )
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidBenchmarkError(
            f"not the records of a study: {reason}", where=where, hint="make them anew"
        ) from error


def read_records(path: Path, parse: Callable[[str, str], Records], hint: str) -> Records:
    """What `parse` makes of a file's text and of where it is; the hint says how the file is made.

    Raises UsageError where there is no such file, or it is no text.
    """
    if not path.is_file():
        raise UsageError("no records of the study", where=str(path), hint=hint)
    try:
        text = read_whole(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("not the records of a study", where=str(path), hint=hint) from error
    return parse(text, str(path))


def write_page(path: Path, text: str, figures: Mapping[str, bytes]) -> Path:
    """Write a page, and the figures beside it; returns the page."""
    for name, content in figures.items():
        write_bytes(path.with_name(name), content)
    write_text(path, text)
    return path


def section(title: str, *parts: str) -> str:
    """A heading of the second level and its paragraphs."""
    return "\n\n".join([f"## {title}", *parts])


def packages_text(packages: dict[str, str]) -> str:
    """Names and versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
