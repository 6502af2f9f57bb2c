"""Finished records that runs share: what one run has measured, another with the same cell takes.

The run folder keeps its records all the same: they stay the truth of a run, and the cache may be
pruned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from pydantic import JsonValue

from casl_bench.cache.code_hash import RECORD_CODE, code_hash, environment, source_hash
from casl_bench.cache.store import ABOUT, Cache, CacheKey, NotKeptError
from casl_bench.core.files import read_json, write_bytes, write_json
from casl_bench.domains.domain import World
from casl_bench.methods.method import METHODS
from casl_bench.metrics.metric import METRICS
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.artefacts import sources_of
from casl_bench.runs.plan import Cell

_RECORD = "record.json"


class SharedRecords:
    """Records of one data set, taken from the cache or made and put there.

    Args:
        cache: where they are kept.
        store: of the run, which is given every record.
        world: of the data set.
    """

    def __init__(self, cache: Cache, store: RecordStore, world: World) -> None:
        self.cache, self.store = cache, store
        metrics: list[JsonValue] = [source_hash(METRICS.factory(name)) for name in METRICS]
        self._code: list[JsonValue] = [code_hash(RECORD_CODE), *sources_of(world), metrics]

    def key(
        self, inputs: dict[str, JsonValue], about: list[str], methods: Iterable[str]
    ) -> CacheKey:
        """Everything that determines a record.

        Args:
            inputs: JSON values.
            about: a few words for whoever lists the cache.
            methods: whose code takes part.
        """
        entrants: dict[str, JsonValue] = {
            name: source_hash(METHODS.factory(name)) for name in sorted(set(methods))
        }
        return CacheKey(
            "records",
            {
                "inputs": inputs,
                ABOUT: [*about],
                "code": [*self._code, entrants],
                "environment": {**environment(torch.get_num_threads())},
            },
        )

    def key_of_cell(self, cell: Cell) -> CacheKey:
        """`key` of a cell of the plan: all that its record compares itself with takes part."""
        methods = [cell.method, *([cell.beside] if cell.beside else [])]
        return self.key(cell.inputs, [cell.dataset, "edit", cell.label], methods)

    def take_or_make(self, key: CacheKey, make: Callable[[], CellRecord | None]) -> None:
        """Have the run's store hold the record of a key.

        Args:
            key: of all that determines it.
            make: makes the record and writes it, with its files, to the run's store, or returns
                None where there is none to be had. Only what is done is shared.

        Raises:
            CacheError: where the cache cannot be written.
            UsageError: where the run folder cannot be written.
            InvalidBenchmarkError: if the cache holds a record that is none.
        """
        made = False

        def copy(folder: Path) -> None:
            nonlocal made
            record, made = make(), True
            if record is None or record.status != "done":
                raise NotKeptError
            for name in _files(record):
                own = self.store.folder(CellKey.of(record)) / name
                write_bytes(folder / name, own.read_bytes())
            write_json(folder / _RECORD, record.to_json())

        with contextlib.suppress(NotKeptError):
            entry = self.cache.get_or_make(key, copy)
            if not made:
                path = entry.folder / _RECORD
                record = CellRecord.from_json(read_json(path), where=str(path))
                files = {name: (entry.folder / name).read_bytes() for name in _files(record)}
                self.store.write(record, files)


def _files(record: CellRecord) -> list[str]:
    return [ref.file for ref in (record.scores, record.images) if ref is not None]
