"""Records on disk: `<run>/cells/<dataset>/<method>/<concept>/`, each folder whole or absent."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from casl_bench.core.content_hash import hash_file
from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import (
    make_folder,
    read_json,
    safe_name,
    write_bytes,
    write_json,
)
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.jsonl import write_jsonl
from casl_bench.records.record import FileRef, Kind, RunRecord

_RECORD = "record.json"


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
    def of(cls, record: RunRecord) -> CellKey:
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
    """The records of one run folder.

    Args:
        run: the run folder; made on the first write.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.cells = run / "cells"
        self._partial = run / ".partial"

    def folder(self, key: CellKey) -> Path:
        """Where a cell is kept."""
        return self.cells / key.path

    def write(self, record: RunRecord, files: Mapping[str, bytes] | None = None) -> Path:
        """Keep a record with the files it refers to, replacing an older one of the same cell.

        Everything is written into a folder aside, which is then renamed into place: an
        interruption leaves the old cell, the new one, or (for an instant) none; never a mixture.

        Args:
            record: the record.
            files: name → content of `record.scores` and `record.images`, and no others.

        Returns:
            The cell's folder.

        Raises:
            InputError: if the files are not those the record refers to, by name and hash.
            UsageError: where the run folder cannot be written.
        """
        files = dict(files or {})
        referred = {ref.file: ref for ref in _refs(record)}
        if set(files) != set(referred):
            raise InputError(f"files {sorted(files)} are not the record's {sorted(referred)}")
        target = self.folder(CellKey.of(record))
        aside = self._new_folder_aside()
        try:
            for name, content in files.items():
                write_bytes(aside / name, content)
                if hash_file(aside / name) != referred[name].sha256:
                    raise InputError(f"file '{name}' does not have the hash that the record gives")
            write_json(aside / _RECORD, record.to_json())
            self._move_into_place(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            # Gone as soon as nobody else is writing.
            with contextlib.suppress(OSError):
                self._partial.rmdir()
        return target

    def find(self, key: CellKey) -> RunRecord | None:
        """The record of a cell, or None where it has none.

        Raises:
            InvalidBenchmarkError: if it is corrupt.
        """
        folder = self.folder(key)
        return self._read(folder) if folder.exists() else None

    def scores(self, record: RunRecord) -> ScoreTable | None:
        """The per-image scores kept with a record, or None where it has none.

        Raises:
            InvalidBenchmarkError: if the file is absent or is not the one that was written.
        """
        if record.scores is None:
            return None
        path = self.folder(CellKey.of(record)) / record.scores.file
        _verify(path, record.scores)
        return ScoreTable.from_csv(path.read_text(encoding="utf-8"))

    def __iter__(self) -> Iterator[RunRecord]:
        """All records, in the order of their folders' names.

        Raises:
            InvalidBenchmarkError: at the first corrupt one.
        """
        for path in sorted(self.cells.glob(f"*/*/*/{_RECORD}"), key=lambda p: p.parts):
            yield self._read(path.parent)

    def write_jsonl(self, path: Path | None = None) -> Path:
        """All records as one JSON object a line, in the order of iteration.

        Args:
            path: default `records.jsonl` in the run folder.
        """
        path = path or self.run / "records.jsonl"
        write_jsonl(path, self)
        return path

    def _read(self, folder: Path) -> RunRecord:
        path = folder / _RECORD
        record = RunRecord.from_json(_load_json(path), where=str(path))
        if self.folder(CellKey.of(record)) != folder:
            raise InvalidBenchmarkError("record lies in another cell's folder", where=str(path))
        for ref in _refs(record):
            _verify(folder / ref.file, ref)
        return record

    def _new_folder_aside(self) -> Path:
        while True:
            make_folder(self._partial)
            # Another process may take the empty folder away between these two lines.
            with contextlib.suppress(FileNotFoundError):
                return Path(tempfile.mkdtemp(dir=self._partial))

    def _move_into_place(self, aside: Path, target: Path) -> None:
        try:
            aside.chmod(0o755)
            target.parent.mkdir(parents=True, exist_ok=True)
            replaced = self._new_folder_aside()
            if target.exists():
                target.rename(replaced / "old")
            aside.rename(target)
            shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            raise UsageError(f"cannot write: {error.strerror}", where=str(target)) from error


def _load_json(path: Path) -> object:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InvalidBenchmarkError(
            f"record cannot be read: {error}",
            where=str(path),
            mend="delete its folder to run the cell again",
        ) from error


def _refs(record: RunRecord) -> list[FileRef]:
    return [ref for ref in (record.scores, record.images) if ref is not None]


def _verify(path: Path, ref: FileRef) -> None:
    if not path.is_file() or hash_file(path) != ref.sha256:
        raise InvalidBenchmarkError(
            "a record's file is absent or was changed",
            where=str(path),
            mend="delete its folder to run the cell again",
        )
