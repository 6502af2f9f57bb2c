"""All cells of one data set: run one by one, skipping what is done, surviving what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Literal

from pydantic import JsonValue

from casl_bench.cache.store import CacheError
from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.memory import told_in_one_line
from casl_bench.images.dataset import Split
from casl_bench.methods.method import METHODS, SupportsLatentRanking
from casl_bench.records.record import Kind, RunRecord
from casl_bench.records.record_store import CellKey, RecordStore
from casl_bench.runs.cells.dataset_records import DatasetRecords, Probes
from casl_bench.runs.cells.edit_cells import EditCells
from casl_bench.runs.cells.lacks import lacks
from casl_bench.runs.cells.record_parts import without_result
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.finished import is_done
from casl_bench.runs.planning.plan import (
    KEY_ARTEFACT,
    STAGE_VERSION,
    Cell,
    fingerprint,
    info_of,
    make_method,
)
from casl_bench.runs.planning.sources import (
    Sources,
    changed,
    sources_of_methods,
    sources_of_metrics,
    sources_of_world,
    with_sources,
)
from casl_bench.runs.shared_work.artefacts import Artefacts
from casl_bench.runs.shared_work.fitting import NotApplicableError
from casl_bench.runs.shared_work.shared_records import SharedRecords
from casl_bench.runs.watching.progress import Progress
from casl_bench.runs.watching.stopwatch import Stopwatch
from casl_bench.worlds.world import World


class DatasetRun:
    """All cells of one data set."""

    def __init__(
        self, world: World, config: RunConfig, store: RecordStore, progress: Progress
    ) -> None:
        self.world, self.config, self.store, self.progress = world, config, store, progress
        self.artefacts = Artefacts(world, config, progress)
        self.cells = EditCells(self.artefacts, store, progress)
        self.records = DatasetRecords(self.artefacts, self.cells)
        self.shared = SharedRecords(self.artefacts.cache, store, world)
        self._probes: Probes | None = None

    def hear(self, progress: Progress) -> None:
        """Show progress elsewhere from now on."""
        self.progress = self.cells.progress = self.artefacts.progress = progress
        self.cells.fitting.progress = progress

    def prepare(self) -> None:
        """What comes before any cell: no table may rest on scorers or images that fail here."""
        with self._watching():
            self._shared("scorer", self.records.scorer)
            self._shared("reconstruction", self.records.reconstruction)

    def share(self, part: Split | Literal["sae"]) -> None:
        """Make something that cells read, so that processes which run them find it."""
        with self._watching():
            _ = getattr(self.artefacts, part)

    def run_cells(self, cells: Sequence[Cell], finished: Callable[[Cell], None]) -> bool:
        """Whether any cell failed; cells are in the plan's order."""
        failed = False
        with self._watching():
            for cell in cells:  # the plan puts a control beside a method before that method
                if not is_done(self.store, cell):
                    failed |= not self._run_cell(cell)
                    finished(cell)
                if not cell.control and not cell.fit_seed:
                    failed |= not self._probe(cell)
        return failed

    def finish(self) -> None:
        """What comes last, where a method reads the SAE: how good it is."""
        with self._watching():
            self._shared("sae", self.records.sae)

    def fail(self, cell: Cell, error: Exception, status: Literal["failed", "skipped"]) -> None:
        """Give a cell that is not run a record of its reason."""
        self.store.write(without_result(self.world, self.config, cell, status, error))

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Have the progress's phases pay for the block's passes, and want of memory told."""
        with self.progress.costs.count(self.world.backbone.unet), told_in_one_line():
            yield

    def _run_cell(self, cell: Cell) -> bool:
        """Whether the cell is done or does not apply; a fault of the method ends its cell alone."""
        try:
            with told_in_one_line():
                if lacks(self.store, cell):
                    # Compared without what failed here: no other run's record.
                    self.cells.run(cell)
                else:
                    key = self.shared.key_of_cell(cell)
                    self.shared.take_or_make(key, lambda: self.cells.run(cell))
            return True
        except (InvalidBenchmarkError, CacheError):
            raise
        except NotApplicableError as error:
            self.store.write(without_result(self.world, self.config, cell, "skipped", error))
            return True
        except Exception as error:  # noqa: BLE001 - a stranger's method may fail in any way
            self.fail(cell, error, "failed")
            self.progress.note(f"{cell.label} failed: {type(error).__name__}: {error}")
            return False

    def _probe(self, cell: Cell) -> bool:
        """Probe a method's ranked latents, where it ranks any and its own cell is done.

        Returns:
            Whether there is no more to be had: a fault of the method ends its probe alone.
        """
        method = make_method(cell.method, self.config.suite)
        if not method.info.uses_sae or not is_done(self.store, cell):
            return True
        key = hash_json([cell.key, "probe", STAGE_VERSION])
        if self._has(cell.probe_store_key, key, self._sources([cell.method])):
            return True
        inputs: dict[str, JsonValue] = {"probe of": cell.inputs}
        about = [cell.dataset, "probe", cell.label]
        try:
            with told_in_one_line():
                self.shared.take_or_make(
                    self.shared.key(inputs, about, [cell.method]),
                    lambda: self._make_probe(cell, key),
                )
            return True
        except (InvalidBenchmarkError, CacheError):
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's method may fail in any way
            self.store.write(self._no_probe(cell, key, "failed", error))
            self.progress.note(f"{cell.label}: probe failed: {type(error).__name__}: {error}")
            return False

    def _make_probe(self, cell: Cell, key: str) -> RunRecord | None:
        """None where the method ranks no latents."""
        editor, _ = self.cells.fitting.editor(cell.method, cell.concept, Stopwatch())
        if not isinstance(editor, SupportsLatentRanking):
            self.store.remove(cell.probe_store_key)  # it may have ranked some before it was edited
            return None
        if self._probes is None:
            self._probes = self.records.probe_features()
        with self.progress.task(f"{cell.label}: probe", 1):
            try:
                record = self.records.probe(key, cell.method, cell.concept, self._probes)
            except InputError as error:  # such as an attribute that all images have
                record = self._no_probe(cell, key, "skipped", error)
            record = with_sources(record, self._sources([cell.method]))
            self.store.write(record)
        return record

    def _no_probe(
        self, cell: Cell, key: str, status: Literal["failed", "skipped"], error: Exception
    ) -> RunRecord:
        record = without_result(self.world, self.config, cell, status, error)
        return record.model_copy(update={"kind": "probe", "artefacts": {KEY_ARTEFACT: key}})

    def _shared(self, kind: Kind, make: Callable[[str], RunRecord]) -> None:
        """A record of the whole data set, unless it is there."""
        card = self.world.dataset.card
        inputs: list[JsonValue] = [
            kind, STAGE_VERSION, fingerprint(self.world), self.config.key(), asdict(card)
        ]  # fmt: skip
        key = hash_json(inputs)
        # Some of these run entrants of their own, such as known edits.
        names = [name for name in METHODS if info_of(name).control]
        sources = {**self._sources(names), **sources_of_metrics()}

        def write() -> RunRecord:
            record = with_sources(make(key), sources)
            with self.progress.task(f"{kind}: record", 1):
                self.store.write(record)
            return record

        if not self._has(CellKey(card.name, kind), key, sources):
            self.shared.take_or_make(
                self.shared.key({"of": inputs}, [card.name, kind], names), write
            )

    def _sources(self, methods: Sequence[str]) -> Sources:
        factories = {name: METHODS.factory(name) for name in methods}
        return {**sources_of_world(self.world), **sources_of_methods(factories)}

    def _has(self, place: CellKey, key: str, sources: Sources) -> bool:
        record = self.store.find(place)
        if record is None or record.artefacts.get(KEY_ARTEFACT) != key:
            return False
        return record.status != "failed" and not changed(record.provenance.sources, sources)
