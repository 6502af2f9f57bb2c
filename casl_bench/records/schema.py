"""The published format of records: `python -m casl_bench.records.schema` writes schema.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from casl_bench.core.files import json_text, write_text
from casl_bench.records.record import RunRecord

SCHEMA_FILE = Path(__file__).with_name("schema.json")


def record_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a stored record, generated from `RunRecord`."""
    schema = RunRecord.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["record_id"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of canonical JSON of all other fields but provenance.",
    }
    schema["required"] = sorted([*schema["required"], "record_id"])
    return schema


def schema_text() -> str:
    """The content of schema.json."""
    return json_text(record_schema())


if __name__ == "__main__":
    write_text(SCHEMA_FILE, schema_text())
