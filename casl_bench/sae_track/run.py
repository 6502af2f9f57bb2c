"""All cells of `casl-bench sae`: a dictionary on a data set, at a site, a size and a seed.

A cell is a record in the run folder, whole or absent; the same command goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config

from casl_bench.cache.code_hash import code_hash
from casl_bench.core.errors import BenchError, InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_json, write_bytes
from casl_bench.domains.dataset import DATASETS, SupportsOracle
from casl_bench.domains.domain import Domain
from casl_bench.models.micro_batch import one_thread
from casl_bench.models.model_files import hash_tensors
from casl_bench.results.sae_record import (
    CELLS,
    SaeCellId,
    SaeRecord,
    read_record,
    record_path,
    write_record,
)
from casl_bench.runs.artifacts import Artifacts, SaeSpec
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import fingerprint, open_domain
from casl_bench.runs.progress import Progress, SilentProgress
from casl_bench.runs.suites import RunConfig
from casl_bench.runs.suites import suite as run_suite
from casl_bench.sae.dictionary import Dictionary, dictionary_class, is_folder
from casl_bench.sae.foreign import ForeignDictionary, load_dictionary
from casl_bench.sae_track.data import SiteData
from casl_bench.sae_track.evaluate import evaluate
from casl_bench.sae_track.suites import SaeSuite, TimeRange

_CODE = ("sae_track", "metrics", "sae")


@dataclass(frozen=True)
class TrackConfig:
    """A checked command of the track.

    Attributes:
        saes: registered names, or absolute paths of dictionaries trained elsewhere.
        jobs: processes that measure cells, of one thread each.
    """

    suite: SaeSuite
    saes: tuple[str, ...]
    datasets: tuple[str, ...]
    out: Path
    cache: Path
    plugins: tuple[Path, ...] = ()
    jobs: int = 1

    def run_config(self, dataset: str) -> RunConfig:
        """What the artifacts of a data set are made by: those of the editing track's suite."""
        return RunConfig(
            methods=("casl",),
            datasets=(dataset,),
            concepts=None,
            suite=run_suite(self.suite.run_suite),
            seed=0,
            device="cpu",
            out=self.out,
            cache=self.cache,
            plugins=self.plugins,
        )


def cells_of(config: TrackConfig, dataset: str) -> list[SaeCellId]:
    """Every cell of a data set: sizes and seeds only where they make another dictionary."""
    suite = config.suite
    found: dict[SaeCellId, None] = {}
    for seed in range(suite.seeds):
        for site in suite.sites:
            for name in config.saes:
                info = _kind(name).info
                sized_by = () if is_folder(name) else info.sized_by
                if seed and not info.seeded:
                    continue
                trained = bool(sized_by) and not info.control
                spans: list[str | None] = [None] if suite.pooled or not trained else []
                spans += [r.name for r in suite.ranges] if suite.per_range and trained else []
                for width, k, vectors, span in product(
                    suite.widths if "d_sae" in sized_by else (None,),
                    suite.targets if "k" in sized_by else (None,),
                    suite.vectors if trained else (None,),
                    spans,
                ):
                    cell = SaeCellId(
                        dataset=dataset, sae=name, site=site, d_sae=width, k=k, seed=seed,
                        vectors=vectors, trained_on=span,
                    )  # fmt: skip
                    found[cell] = None
    return list(found)


def _kind(name: str) -> type[Dictionary]:
    return ForeignDictionary if is_folder(name) else dictionary_class(name)


class Track:
    """The cells of one data set."""

    def __init__(self, config: TrackConfig, dataset: str, progress: Progress) -> None:
        self.config, self.dataset = config, dataset
        self.domain: Domain = open_domain(dataset, config.run_config(dataset))
        self.artifacts = Artifacts(self.domain, config.run_config(dataset), progress)
        self._sites: dict[str, SiteData] = {}

    def prepare(self) -> None:
        """Make what all cells share: inversions of images and of their flips."""
        for site in self.config.suite.sites:
            self._site(site)
        if any(_kind(name).info.needs == "pairs" for name in self.config.saes):
            self.artifacts.flipped("train", self.artifacts.oracle_images)

    def key(self, cell: SaeCellId) -> str:
        """Hash of everything that determines a cell's numbers."""
        spec = self._spec(cell)
        return hash_json(
            [
                self.config.suite.model_dump(mode="json"),
                cell.model_dump(mode="json"),
                fingerprint(self.domain),
                [concept.name for concept in self.domain.dataset.card.concepts],
                self.artifacts.split_key("test").hash,
                self._content(spec),
                code_hash(_CODE),
            ]
        )

    def is_done(self, cell: SaeCellId) -> bool:
        """Whether its record is there, made of the very same."""
        path = record_path(self.config.out, cell)
        try:
            return path.is_file() and read_record(path).key == self.key(cell)
        except InvalidBenchmarkError:
            return False

    def run(self, cell: SaeCellId) -> SaeRecord:
        """Measure one cell and write its record and pictures.

        Raises InputError where the data set lacks what the dictionary needs.
        """
        suite, data = self.config.suite, self._site(cell.site)
        if cell.trained_on is not None:
            suite = suite.model_copy(update={"ranges": (self._range(cell.trained_on),)})
        spec = self._spec(cell)
        with one_thread():
            started = time.monotonic()
            sae = self.artifacts.dictionary(spec)
            fitted = round(time.monotonic() - started, 2)
            if sae.channels != data.test.h(0, slice(0, 1)).shape[1]:
                raise InputError(
                    f"the dictionary takes vectors of {sae.channels} numbers, the site "
                    f"'{cell.site}' has {data.test.h(0, slice(0, 1)).shape[1]} channels"
                )
            other = None
            if suite.seeds > 1 and sae.sae.info.seeded:
                other = self.artifacts.dictionary(replace(spec, seed=(cell.seed + 1) % suite.seeds))
            acts = cell.seed < suite.acting_seeds
            found = evaluate(sae, other, data, suite, cell.name, acts=acts)
        info = sae.sae.info
        for file, content in found.pictures.items():
            write_bytes(self.config.out / CELLS / file, content)
        record = SaeRecord(
            id=cell,
            key=self.key(cell),
            title=Path(cell.sae).name if is_folder(cell.sae) else info.title,
            control=info.control,
            signed=info.signed,
            source=info.source,
            suite=suite.name,
            quick=suite.quick,
            d_sae=sae.d_sae,
            attributes=self.domain.dataset.card.attributes,
            ranges=tuple(r.name for r in suite.ranges),
            measurements=found.measurements,
            latents=found.latents,
            content_hash=sae.content_hash,
            domain_kind=self.domain.dataset.card.domain_kind,
            seconds={"dictionary": fitted, **found.seconds},
        )
        write_record(self.config.out, record)
        return record

    def _spec(self, cell: SaeCellId) -> SaeSpec:
        span = None if cell.trained_on is None else self._range(cell.trained_on)
        between = None if span is None else (span.low, span.high)
        return SaeSpec(cell.sae, cell.d_sae, cell.k, cell.seed, cell.site, cell.vectors, between)

    def _range(self, name: str) -> TimeRange:
        return next(r for r in self.config.suite.ranges if r.name == name)

    def _content(self, spec: SaeSpec) -> str:
        if is_folder(spec.name):
            return hash_tensors(load_dictionary(Path(spec.name)).state_dict())
        return self.artifacts.sae_key(spec).hash

    def _site(self, site: str) -> SiteData:
        if site not in self._sites:
            suite = self.config.suite
            self._sites[site] = SiteData(self.artifacts, site, suite.pair_images, suite.edit_images)
        return self._sites[site]


def check_datasets(names: Sequence[str]) -> None:
    """Refuse, with a UsageError, a data set whose images cannot be flipped."""
    for name in names:
        if not isinstance(DATASETS.create(name), SupportsOracle):
            raise UsageError(
                f"the factors of '{name}' are not known, and the track measures against them",
                hint="name rendered data sets with --datasets",
            )


def run_track(config: TrackConfig, progress: Progress) -> list[str]:
    """Measure every cell that is not done; returns one line for each that failed.

    Raises what concerns all cells, such as a damaged model.
    """
    failed: list[str] = []
    progress.start(sum(len(cells_of(config, dataset)) for dataset in config.datasets))
    if config.jobs > 1 and len(config.datasets) > 1:
        with progress.task("inversions of all data sets", len(config.datasets)) as step:
            for _ in _parallel(
                config.jobs, (delayed(_prepare)(config, d) for d in config.datasets)
            ):
                step(1)
    for dataset in config.datasets:
        track = Track(config, dataset, progress)
        with one_thread():
            track.prepare()
        planned = cells_of(config, dataset)
        cells = [c for c in planned if not track.is_done(c)]
        progress.note(f"{dataset}: {len(cells)} of {len(planned)} dictionaries to measure")
        with progress.task(dataset, len(cells), len(planned), "dictionaries") as step:
            lines = (
                (_measured(track, cell) for cell in cells)
                if config.jobs == 1 or len(cells) < 2
                else _parallel(
                    config.jobs, (delayed(_in_process)(config, dataset, c) for c in cells)
                )
            )
            for line in lines:
                step(1)
                failed += [line] if line else []
    return failed


def _parallel(jobs: int, calls: Iterable[Any]) -> Iterator[Any]:
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)


def _track(config: TrackConfig, dataset: str) -> Track:
    load_registries(config.plugins)
    return Track(config, dataset, SilentProgress())


_same_track = lru_cache(maxsize=1)(_track)
"""Cells of a data set, one after another in a process, share what is large."""


def _prepare(config: TrackConfig, dataset: str) -> None:
    with one_thread():
        _track(config, dataset).prepare()


def _in_process(config: TrackConfig, dataset: str, cell: SaeCellId) -> str:
    return _measured(_same_track(config, dataset), cell)


def _measured(track: Track, cell: SaeCellId) -> str:
    """Measure a cell; what was wrong in one line, empty where nothing was."""
    try:
        track.run(cell)
    except InvalidBenchmarkError:
        raise
    except BenchError as error:
        return f"{cell.name}: {error}"
    except Exception as error:  # noqa: BLE001 - a stranger's dictionary may fail in any way
        return f"{cell.name}: {type(error).__name__}: {error}"
    return ""
