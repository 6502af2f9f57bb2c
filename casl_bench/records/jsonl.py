"""Records of many cells in one file: one JSON object a line, plain or gzipped (`.jsonl.gz`)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import parse_json, write_bytes
from casl_bench.records.record import RunRecord

ENDINGS = (".jsonl", ".jsonl.gz")

MOST_BYTES = 1 << 30
"""Of a file once it is unpacked: a small one from a stranger must not fill the memory."""


def jsonl_files(folder: Path) -> list[Path]:
    """The files of records in a folder, in order of name."""
    return sorted(path for ending in ENDINGS for path in folder.glob(f"*{ending}"))


def jsonl_stem(path: Path) -> str:
    """A file's name without its ending."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def write_jsonl(path: Path, records: Iterable[RunRecord]) -> None:
    """Write records in the order given; the same records give the same bytes.

    Args:
        path: gzipped where its name ends with `.gz`.
        records: what to write.

    Raises:
        UsageError: if it cannot be written.
    """
    data = "".join(map(_line, records)).encode()
    # A gzip header holds a time unless it is told not to.
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_jsonl(path: Path) -> list[RunRecord]:
    """Records of a file that `write_jsonl` wrote.

    Raises:
        InvalidBenchmarkError: on an absent or damaged file or a line that is no valid record.
    """
    try:
        lines = _unpacked(path).decode().rstrip("\n").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidBenchmarkError(f"cannot read records: {error}", where=str(path)) from error
    records = []
    # Not splitlines: a string in a record may hold other line separators.
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        where = f"{path}:{number}"
        try:
            stored = parse_json(line)
        except ValueError as error:
            raise InvalidBenchmarkError(f"not a record: {error}", where=where) from error
        records.append(RunRecord.from_json(stored, where))
    return records


def _line(record: RunRecord) -> str:
    stored = record.to_json()
    return json.dumps(stored, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _unpacked(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    with gzip.open(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InvalidBenchmarkError(
            f"more than {MOST_BYTES >> 30} GiB once unpacked", where=str(path)
        )
    return data
