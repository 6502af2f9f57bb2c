"""What a run folder remembers: after a fault the same command ends with a fresh run's records."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from casl_bench.analysis.analyse import read_numbers
from casl_bench.cache import code_hash as code_version
from casl_bench.cache.store import Cache
from casl_bench.conformance.toy_domain import CARD
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.casl import CaslEditor
from casl_bench.methods.method import METHODS
from casl_bench.report.tables import render_tables
from casl_bench.results.record import CellRecord, ErrorInfo
from casl_bench.results.run_folder import DAMAGED, CellKey, RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs.cell import EditCells
from casl_bench.runs.dry_run import dry_run_text
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import Cell, with_sources
from casl_bench.runs.progress import BufferedProgress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import RunConfig
from tests.support.tiny_suite import tiny_suite

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("toy_registered")]
METHOD = Path(__file__).parents[1] / "plugin" / "single_file_method.py"
CONCEPT = CARD.concepts[0].name
DRAW = CellKey(CARD.name, "null", "random_direction", fit_seed=1)
BESIDE = CellKey(CARD.name, "edit", "random_rotation", "casl", CONCEPT)
CASL = CellKey(CARD.name, "edit", "casl", None, CONCEPT)


def config(out: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "methods": ("casl",), "datasets": (CARD.name,), "concepts": (CONCEPT,),
        "suite": tiny_suite(), "seed": 0, "device": "cpu", "out": out,
        "cache": out.with_name("cache"),
    }  # fmt: skip
    return RunConfig(**(settings | changes))


def run(out: Path, said: BufferedProgress | None = None, **changes: Any) -> int:
    return runner.run(config(out, **changes), said or BufferedProgress())


def records(out: Path) -> dict[CellKey, CellRecord]:
    return {CellKey.of(r): r for r in RecordStore(out)}


def ids(out: Path) -> dict[CellKey, str]:
    return {key: r.record_id for key, r in records(out).items()}


def written(out: Path) -> dict[CellKey, int]:
    store = RecordStore(out)
    return {k: (store.folder(k) / "record.json").stat().st_mtime_ns for k in records(out)}


@pytest.fixture(scope="module")
def fresh(toy_registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run, its cache beside it."""
    out = tmp_path_factory.mktemp("fresh") / "run"
    with claim_run_folder(config(out)):
        assert run(out) == 0
    return out


@pytest.fixture
def out(fresh: Path, tmp_path: Path) -> Path:
    """A run folder to be made, beside a cache that has everything."""
    shutil.copytree(fresh.with_name("cache"), tmp_path / "cache")
    return tmp_path / "run"


def test_a_cell_that_failed_is_run_again_and_nothing_else(
    fresh: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = EditCells.run

    def run_cell(self: EditCells, cell: Cell) -> CellRecord:
        if cell.store_key == BESIDE:
            raise RuntimeError("for once")
        return whole(self, cell)

    with monkeypatch.context() as patch:
        patch.setattr(EditCells, "run", run_cell)
        assert run(out) == 3
        before = written(out)
        assert {k for k, r in records(out).items() if r.status == "failed"} == {BESIDE}
    assert run(out) == 0
    assert ids(out) == ids(fresh)
    assert {k for k, when in written(out).items() if when != before[k]} == {BESIDE}


def test_a_method_that_fails_while_it_is_probed_ends_its_probe_alone(
    fresh: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, said = CellKey(CARD.name, "probe", "casl", None, CONCEPT), BufferedProgress()
    with monkeypatch.context() as patch:

        def no_ranking(self: CaslEditor) -> torch.Tensor:
            raise RuntimeError("no ranking today")

        patch.setattr(CaslEditor, "latent_ranking", no_ranking)
        assert run(out, said) == 3
    failed = [r for r in RecordStore(out) if r.status == "failed"]
    assert [CellKey.of(r) for r in failed] == [probe]
    assert failed[0].error == ErrorInfo(type="RuntimeError", message="no ranking today")
    assert "no ranking today" in render_tables(read_numbers(out))
    assert sum("probe failed: RuntimeError: no ranking today" in line for line in said.lines) == 1
    assert run(out) == 0
    assert ids(out) == ids(fresh)


def test_a_benchmark_that_is_broken_is_not_told_as_a_probe_that_failed(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(fresh, out)
    shutil.rmtree(RecordStore(out).folder(CellKey(CARD.name, "probe", "casl", None, CONCEPT)))

    def broken(self: CaslEditor) -> torch.Tensor:
        raise InvalidBenchmarkError("it is broken")

    monkeypatch.setattr(CaslEditor, "latent_ranking", broken)
    with pytest.raises(InvalidBenchmarkError, match="it is broken"):
        run(out, cache=tmp_path / "cache")


def test_damaged_files_are_told_in_one_line_and_made_again_from_the_cache(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("fitted or inverted again")

    out, said = tmp_path / "run", BufferedProgress()
    shutil.copytree(fresh, out)
    places = {k.path.as_posix(): RecordStore(out).folder(k) for k in (CASL, DRAW, BESIDE)}
    places[f"{CARD.name}/_scorer/_all"] = out / "cells" / CARD.name / "_scorer" / "_all"
    casl, draw, beside, scorer = (places[p] for p in places)
    flip(casl / "scores.npz")
    flip(draw / "scores.npz")
    (beside / "record.json").unlink()
    (scorer / "record.json").write_bytes((scorer / "record.json").read_bytes()[:-9])
    damaged = (draw / "scores.npz").read_bytes()
    monkeypatch.setattr(Cache, "_make", fail)
    settings = config(out, cache=fresh.with_name("cache"))
    assert f"{len(places) - 2} to do" in dry_run_text(settings)  # two are no cells
    for again in range(2):
        assert runner.run(settings, said) == 0
        told = [line for line in said.lines if line.startswith("damaged")]
        assert len(told) == 1, again
    assert {*told[0].split(": ")[1].split(", ")} == {f"cells/{place}" for place in places}
    assert ids(out) == ids(fresh)
    assert (out / DAMAGED / draw.relative_to(out) / "scores.npz").read_bytes() == damaged


def test_an_edited_method_is_run_again_and_others_are_not(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, out = [tmp_path / "darken.py", tmp_path / "shade.py"], tmp_path / "run"
    text = METHOD.read_text()
    for plugin in plugins:
        plugin.write_text(text.replace('"darken"', f'"{plugin.stem}"'))
    cache = fresh.with_name("cache")

    def command(out: Path = out) -> list[str]:
        """As a process of its own would: with what the files hold by now."""
        said = BufferedProgress()
        code_version._source_of.cache_clear()
        for name in [n for n in sys.modules if n.startswith("casl_bench_plugin_")]:
            del sys.modules[name]
        load_registries(plugins)
        assert run(out, said, methods=("darken", "shade"), cache=cache) == 0
        return [line for line in said.lines if line.startswith("edited since")]

    monkeypatch.setattr(METHODS, "_factories", dict(METHODS._factories))
    assert command() == []
    before, first = written(out), records(out)
    darken = CellKey(CARD.name, "edit", "darken", None, CONCEPT)
    assert first[darken].provenance.sources.keys() >= {
        "method darken", f"data set {CARD.name}"
    }  # fmt: skip
    plugins[0].write_text(plugins[0].read_text().replace("- s * self", "- 2 * s * self"))
    assert command() == ["edited since: method darken; 1 cell made again"]
    after = written(out)
    assert {k for k in after if after[k] != before[k]} == {darken}
    assert records(out)[darken].record_id != first[darken].record_id
    assert command() == [] and written(out) == after
    assert command(tmp_path / "fresh") == [] and ids(tmp_path / "fresh") == ids(out)
    older = RecordStore(out)
    for record in records(out).values():  # made before records told their sources
        files = {r.file: (older.folder(CellKey.of(record)) / r.file).read_bytes()
                 for r in (record.scores, record.validation_scores, record.images)
                 if r is not None}  # fmt: skip
        older.write(with_sources(record, {}), files)
    after = written(out)
    plugins[0].write_text(text)
    assert command() == [] and written(out) == after


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
