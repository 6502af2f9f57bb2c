"""Records on disk: `<run>/cells/<dataset>/<method>/<concept>/`, each folder whole or absent."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import (
    MOST_BYTES,
    bounded_lines,
    hash_file,
    parse_json,
    partial_folder,
    read_json,
    regular,
    safe_name,
    unwritable,
    write_bytes,
    write_json,
)
from casl_bench.results.record import CellRecord, FileRef, Kind, RunRecord
from casl_bench.results.score_table import ScoreTable

# Records of many cells in one file: one JSON object a line, plain or gzipped (`.jsonl.gz`).


T = TypeVar("T")
ENDINGS = (".jsonl", ".jsonl.gz")


def jsonl_files(folder: Path) -> list[Path]:
    """The files of records in a folder, in order of name."""
    return sorted(path for ending in ENDINGS for path in folder.glob(f"*{ending}"))


def jsonl_stem(path: Path) -> str:
    """A file's name without its ending."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def write_jsonl(path: Path, records: Iterable[RunRecord]) -> None:
    """Write records, gzipped if the name ends with `.gz`; the same ones give the same bytes."""
    stored = [record.to_json() for record in records]
    lines = [json.dumps(r, sort_keys=True, allow_nan=False, ensure_ascii=False) for r in stored]
    data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    # A gzip header holds a time unless it is told not to.
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_jsonl(path: Path) -> list[RunRecord]:
    """Records that `write_jsonl` wrote; InvalidBenchmarkError on anything else."""
    return list(_lines_as(path, RunRecord.from_json))


def stored_lines(path: Path) -> Iterator[Any]:
    """The same as JSON values, one at a time."""
    return _lines_as(path, lambda stored, where: stored)


def _lines_as(path: Path, make: Callable[[Any, str], T]) -> Iterator[T]:
    try:
        regular(path)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(bounded_lines(file), start=1):
                where = f"{path}:{number}"
                try:
                    found = make(_parsed(line, where), where)
                except InvalidBenchmarkError:
                    # What a packed file has at its end says whether it is damaged as a whole.
                    any(not file.read(1 << 20) for _ in range(MOST_BYTES >> 20))
                    raise
                yield found
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InvalidBenchmarkError(f"cannot read records: {error}", where=str(path)) from error


def _parsed(line: bytes, where: str) -> Any:
    try:
        return parse_json(line.decode())
    except ValueError as error:
        raise InvalidBenchmarkError(f"not a record: {error}", where=where) from error


SUMMARY_FILE = "summary.txt"
"""In a run folder: what its command printed at the end."""

_RECORD = "record.json"
_TRIES = 1000
"""So often a place is tried that another process may have taken at the same moment."""


@dataclass(frozen=True)
class CellKey:
    """Which cell of a run: what its folder is named after."""

    dataset: str
    kind: Kind = "edit"
    method: str | None = None
    beside: str | None = None
    concept: str | None = None
    fit_seed: int = 0

    @classmethod
    def of(cls, record: CellRecord | RunRecord) -> CellKey:
        """The cell that a record is of."""
        place = (record.dataset, record.kind, record.method, record.beside, record.concept)
        return cls(*place, record.fit_seed)

    @property
    def path(self) -> Path:
        """Relative folder: `dataset/method[@beside][+seed]/concept`.

        `_kind` leads where no edit is.
        """
        method = "" if self.method is None else safe_name(self.method)
        if self.beside is not None:
            method += f"@{safe_name(self.beside)}"
        if self.fit_seed:
            method += f"+{self.fit_seed}"
        if self.kind != "edit":
            method = f"_{self.kind}+{method}" if method else f"_{self.kind}"
        return Path(
            safe_name(self.dataset),
            method,
            "_all" if self.concept is None else safe_name(self.concept),
        )


class RecordStore:
    """The records of one run folder, which is made on the first write."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.cells = run / "cells"

    def folder(self, key: CellKey) -> Path:
        """Where a cell is kept."""
        return self.cells / key.path

    def write(self, record: CellRecord, files: Mapping[str, bytes] | None = None) -> Path:
        """Keep a record with the files it refers to, in place of an older one; the cell's folder.

        Everything is written into a folder aside, which is then renamed into place: an interruption
        leaves the old cell, the new one, or (for an instant) none; never a mixture. `files` are
        name → content. Raises InputError if they are not those the record refers to, by name and
        hash, and UsageError where the run folder cannot be written.
        """
        files = dict(files or {})
        referred = {ref.file: ref for ref in _refs(record)}
        if set(files) != set(referred):
            raise InputError(f"files {sorted(files)} are not the record's {sorted(referred)}")
        target = self.folder(CellKey.of(record))
        with partial_folder(self.run) as aside:
            cell = aside / "cell"
            cell.mkdir()
            for name, content in files.items():
                write_bytes(cell / name, content)
                if hash_file(cell / name) != referred[name].sha256:
                    raise InputError(f"file '{name}' does not have the hash that the record gives")
            write_json(cell / _RECORD, record.to_json())
            self._move_into_place(cell, target)
        return target

    def find(self, key: CellKey) -> CellRecord | None:
        """The record of a cell, or None. Raises InvalidBenchmarkError if it is corrupt."""
        return self.read(self.folder(key))

    def remove(self, key: CellKey) -> None:
        """Delete what is kept of a cell, if anything."""
        shutil.rmtree(self.folder(key), ignore_errors=True)

    def folders(self) -> list[Path]:
        """Folders of all cells, whole or not, in order."""
        return sorted(path for path in self.cells.glob("*/*/*") if path.is_dir())

    def read(self, folder: Path) -> CellRecord | None:
        """The record in a cell's folder, or None; those of older schemas: `read_old`."""
        return _while_whole(folder, self._read)

    def read_old(self) -> list[RunRecord]:
        """Records of schemas 1 and 2, whose cells held their own numbers."""
        found = []
        for folder in self.folders():
            stored = _load_json(folder / _RECORD) if (folder / _RECORD).is_file() else {}
            if _schema(stored) in (1, 2):
                found.append(RunRecord.from_json(stored, where=str(folder / _RECORD)))
        return found

    def files(self, record: CellRecord) -> dict[str, bytes]:
        """Name → content of the files that a record refers to, checked."""
        folder = self.folder(CellKey.of(record))
        for ref in _refs(record):
            _verify(folder / ref.file, ref)
        return {ref.file: (folder / ref.file).read_bytes() for ref in _refs(record)}

    def scores(self, record: CellRecord | RunRecord) -> ScoreTable | None:
        """The per-image scores of the test images, checked; None where a record has none."""
        return self._table(record, record.scores)

    def validation_scores(self, record: CellRecord) -> ScoreTable | None:
        """As `scores`, of the validation images at every strength tried."""
        return self._table(record, record.validation_scores)

    def _table(self, record: CellRecord | RunRecord, ref: FileRef | None) -> ScoreTable | None:
        if ref is None:
            return None

        def read(folder: Path) -> ScoreTable:
            _verify(folder / ref.file, ref)
            data = (folder / ref.file).read_bytes()
            if ref.file.endswith(".csv"):  # schemas 1 and 2
                return ScoreTable.from_csv(data.decode())
            return ScoreTable.from_npz(data)

        folder = self.folder(CellKey.of(record))
        table = _while_whole(folder, read)
        if table is None:
            raise _changed(folder / ref.file)
        return table

    def __iter__(self) -> Iterator[CellRecord]:
        """All records of this schema, in the order of their folders' names."""
        for path in sorted(self.cells.glob(f"*/*/*/{_RECORD}"), key=lambda p: p.parts):
            record = self.read(path.parent)
            if record is not None:
                yield record

    def _read(self, folder: Path) -> CellRecord | None:
        path = folder / _RECORD
        stored = _load_json(path)
        if _schema(stored) in (1, 2):
            return None
        record = CellRecord.from_json(stored, where=str(path))
        if self.folder(CellKey.of(record)) != folder:
            raise InvalidBenchmarkError("record lies in another cell's folder", where=str(path))
        for ref in _refs(record):
            _verify(folder / ref.file, ref)
        return record

    def _move_into_place(self, cell: Path, target: Path) -> None:
        """Rename a folder to its place; of several processes at one cell, the last one's stays."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for number in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):
                target.rename(cell.with_name(str(number)))
            if _renamed(cell, target):
                return
        raise unwritable(target, "other processes write there without end")


def _while_whole(folder: Path, read: Callable[[Path], T]) -> T | None:
    """What is read of a folder that another process may replace meanwhile; None without one."""
    now = _which(folder)
    while now is not None:
        try:
            return read(folder)
        except InvalidBenchmarkError:
            before, now = now, _which(folder)
            if now == before:
                raise
    return None


def _renamed(source: Path, target: Path) -> bool:
    """Whether a folder got its place; another process's may have come there first."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _which(folder: Path) -> tuple[int, int] | None:
    """Tells a folder from one that has taken its place; None where there is none."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _load_json(path: Path) -> object:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InvalidBenchmarkError(
            f"record cannot be read: {error}",
            where=str(path),
            hint="run the folder's command again to make it anew",
        ) from error


def _schema(stored: object) -> object:
    return stored.get("schema_version") if isinstance(stored, dict) else None


def _refs(record: CellRecord) -> list[FileRef]:
    refs = (record.scores, record.validation_scores, record.images)
    return [ref for ref in refs if ref is not None]


def _verify(path: Path, ref: FileRef) -> None:
    there = path.is_file() and path.stat().st_size <= MOST_BYTES
    if not there or hash_file(path) != ref.sha256:
        raise _changed(path)


def _changed(path: Path) -> InvalidBenchmarkError:
    return InvalidBenchmarkError(
        "a record's file is absent or was changed",
        where=str(path),
        hint="run the folder's command again to make it anew",
    )


DAMAGED = "damaged"
"""Folder of a run folder for what is not what was written; nothing reads it."""


def damaged_cells(store: RecordStore) -> tuple[Path, ...]:
    """Folders of cells whose record, or a file that it refers to, is not what was written."""
    damaged = []
    for folder in store.folders():
        try:
            store.read(folder)
        except InvalidBenchmarkError:
            damaged.append(folder)
    return tuple(damaged)


def set_aside(run: Path, paths: Sequence[Path]) -> str:
    """Move damaged files or folders of a run to `damaged`; a line that names them, or ""."""
    names = []
    for path in paths:
        place = path.relative_to(run)
        target = run / DAMAGED / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        except OSError as error:
            hint = "make the run folder writable"
            raise unwritable(path, error, hint, "set aside what is damaged") from error
        names.append(place.as_posix())
    if not names:
        return ""
    return f"damaged, made again where it is needed (set aside in {run / DAMAGED}): " + ", ".join(
        names
    )
