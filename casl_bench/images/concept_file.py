"""A data set's concepts with their texts, in one TOML file that anybody can read and edit."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casl_bench.core.errors import BenchError, UsageError, unknown_name
from casl_bench.images.dataset import Concept

_FOLDER = Path(__file__).with_name("concepts")
_TABLES = {
    "concept": ("name", "source", "target", "attribute"),
    "unmeasured": ("name", "source", "target"),
}


@dataclass(frozen=True)
class TextPair:
    """What a text-driven method would need of a concept that nobody can measure."""

    name: str
    source_prompt: str
    target_prompt: str


@dataclass(frozen=True)
class ConceptFile:
    """What a file holds.

    Attributes:
        concepts: those offered, in the file's order.
        unmeasured: those that no published attribute measures: checked, never offered.
    """

    concepts: tuple[Concept, ...]
    unmeasured: tuple[TextPair, ...]


def shipped_concepts(dataset: str, attributes: Sequence[str] | None = None) -> ConceptFile:
    """The file that comes with the package for a data set. See `read_concepts`."""
    return read_concepts(_FOLDER / f"{dataset}.toml", attributes)


def read_concepts(path: Path, attributes: Sequence[str] | None = None) -> ConceptFile:
    """Read a file of `[[concept]]` tables (name, source, target, attribute).

    Tables `[[unmeasured]]` have the same fields but the last.

    Args:
        path: the file.
        attributes: those of the data set; None where a concept's own name is its attribute.

    Raises:
        UsageError: the file is absent, no TOML, or any field of it is unknown, missing or wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = "no concept file" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UsageError(reason, where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path)) from error
    for table in tables:
        if table not in _TABLES:
            raise _located(unknown_name("table", table, _TABLES), str(path))
    seen: set[str] = set()
    rows = {
        table: [
            _row(row, fields, f"{path}, {table} {place}", seen)
            for place, row in enumerate(_rows(tables, table, path), start=1)
        ]
        for table, fields in _TABLES.items()
    }
    if not rows["concept"]:
        raise UsageError("no [[concept]]", where=str(path))
    for row in rows["concept"]:
        where = f"{path}, concept '{row['name']}'"
        if attributes is not None and row["attribute"] not in attributes:
            raise _located(unknown_name("attribute", row["attribute"], attributes), where)
        if attributes is None and row["attribute"] != row["name"]:
            raise UsageError(
                f"attribute '{row['attribute']}' is not the concept's own name",
                where=where,
                mend="images without labels are judged by the concept itself",
            )
    return ConceptFile(
        tuple(
            Concept(r["name"], r["source"], r["target"], r["attribute"]) for r in rows["concept"]
        ),
        tuple(TextPair(r["name"], r["source"], r["target"]) for r in rows["unmeasured"]),
    )


def _rows(tables: dict[str, Any], table: str, path: Path) -> list[Any]:
    rows = tables.get(table, [])
    if not isinstance(rows, list):
        raise UsageError(f"'{table}' is no list of tables", where=str(path), mend=f"[[{table}]]")
    return rows


def _row(row: Any, fields: Sequence[str], where: str, seen: set[str]) -> dict[str, str]:
    if not isinstance(row, dict):
        raise UsageError("not a table", where=where)
    for field in row:
        if field not in fields:
            raise _located(unknown_name("field", field, fields), where)
    for field in fields:
        if field not in row:
            raise UsageError(f"'{field}' is missing", where=where)
        if not isinstance(row[field], str) or not row[field].strip():
            raise UsageError(f"'{field}' is no text", where=where)
    name = row["name"]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"name '{name}' is not lower_snake", where=where)
    if name in seen:
        raise UsageError(f"concept '{name}' is there twice", where=where)
    seen.add(name)
    if row["source"].split() == row["target"].split():
        raise UsageError("source and target are the same text", where=f"{where}, '{name}'")
    return {field: row[field] for field in fields}


def _located(error: BenchError, where: str) -> UsageError:
    return UsageError(error.what, where=where, mend=error.mend)
