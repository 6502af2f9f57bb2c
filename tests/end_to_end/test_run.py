"""Whole runs on the synth domain with a tiny suite, through the runner that the command uses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from casl_bench.analysis.analyse import NUMBERS_FILE, analyse
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.method import METHODS, EditTask, FitCost, MethodConfig, MethodInfo
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import register_info
from casl_bench.report.tables import render_tables
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import RecordStore, read_jsonl
from casl_bench.runs import executor as runner
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import RunConfig, Suite
from tests.support.tiny_suite import as_measured

TINY = Suite(
    name="tiny",
    version=1,
    description="For tests.",
    quick=True,
    num_steps=6,
    timestep_power=1.5,
    train_images=16,
    validation_images=3,
    test_pool_images=16,
    test_images_per_concept=5,
    strengths=(0.5, 1.0),
    fit_image_steps=24,
    references=False,
    sae_steps=20,
    probe_train_images=16,
    probe_test_images=16,
    probe_ks=(1, 4),
    random_draws=1,
)


class NanEditor:
    """Edits to NaN."""

    cost = FitCost()

    def edit(self, inversions: Any, strengths: Any) -> torch.Tensor:
        return torch.full((len(strengths), *inversions.x_0.shape), torch.nan)

    def state(self) -> dict[str, torch.Tensor]:
        return {}


class NanMethod:
    """A stranger's method that fails in the worst way: silently."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nan_method", title="NaN", source="test", version=1, space="h_space"
    )

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> NanEditor:
        return NanEditor()

    def restore(self, task: EditTask, state: Mapping[str, torch.Tensor]) -> NanEditor:
        return NanEditor()


@pytest.fixture(scope="module", autouse=True)
def entrants() -> Iterator[None]:
    load_registries()
    METHODS.register("nan_method", NanMethod)
    yield
    METHODS._factories.pop("nan_method")


def config(out: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "methods": ("casl", "asyrp"),
        "datasets": ("rendered_faces",),
        "concepts": ("hat",),
        "suite": TINY,
        "seed": 0,
        "device": "cpu",
        "out": out,
    }
    return RunConfig(**(settings | changes))


def run(settings: RunConfig) -> int:
    return runner.run(settings, SilentProgress())


def comparable(out: Path) -> dict[str, Any]:
    return {
        f"{r.kind}/{r.method}@{r.beside}/{r.concept}" + (f"#{r.fit_seed}" if r.fit_seed else ""):
        r.comparable()
        for r in RecordStore(out)
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "first"
    assert run(config(out)) == 0
    return out


def test_leaves_a_record_of_every_cell(finished: Path) -> None:
    assert set(comparable(finished)) == {
        "edit/casl@None/hat",
        "edit/asyrp@None/hat",
        "edit/identity@None/hat",
        "edit/oracle@None/hat",
        "edit/shuffled@None/hat",
        "edit/inverted@None/hat",
        "edit/destroy@None/hat",
        "edit/pixel_attack@None/hat",
        "edit/template@None/hat",
        "null/random_direction@None/None",
        "edit/random_rotation@casl/hat",
        "edit/random_rotation@asyrp/hat",
        "probe/casl@None/hat",
        "sae/None@None/None",
        "scorer/None@None/None",
        "reconstruction/None@None/None",
    }
    numbers = read_jsonl(finished / NUMBERS_FILE)
    assert [(r.kind, r.dataset) for r in numbers if r.kind == "comparison"] == [
        ("comparison", "rendered_faces")
    ]
    # The random direction is measured on the concept as well.
    assert len(numbers) == 16 + 2


def test_table_is_a_function_of_the_records(finished: Path) -> None:
    numbers = as_measured(analyse([finished]))
    table = render_tables(numbers)
    assert table == render_tables(numbers[::-1])
    for part in ("casl", "asyrp", "oracle", "SVM probe", "Reconstruction"):
        assert part in table


@pytest.mark.slow
def test_two_runs_of_other_batch_sizes_give_identical_records(
    finished: Path, tmp_path: Path
) -> None:
    assert run(config(tmp_path / "run", batch_size=3, cache=tmp_path / "cache")) == 0
    assert comparable(tmp_path / "run") == comparable(finished)


@pytest.mark.slow
def test_another_seed_gives_other_fits(finished: Path, tmp_path: Path) -> None:
    assert run(config(tmp_path / "seed", methods=("asyrp",), seed=1)) == 0
    key = "edit/asyrp@None/hat"
    other = comparable(tmp_path / "seed")[key]
    assert other["scores"] != comparable(finished)[key]["scores"]


def test_a_finished_run_costs_no_unet_call(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from casl_bench.models.backbone import Backbone

    def fail(*args: Any) -> None:
        raise AssertionError("a U-Net pass")

    monkeypatch.setattr(Backbone, "encode", fail)
    monkeypatch.setattr(Backbone, "decode", fail)
    before = comparable(finished)
    assert run(config(finished)) == 0
    assert comparable(finished) == before
    # A new version of the headline is a new analysis, and no new cell.
    raised = replace(EPR_PLUS_INFO, version=EPR_PLUS_INFO.version + 1)
    register_info(raised)
    try:
        assert run(config(finished)) == 0
        numbers = read_jsonl(finished / NUMBERS_FILE)
    finally:
        register_info(EPR_PLUS_INFO)
    assert comparable(finished) == before
    edits = [r for r in numbers if r.kind == "edit"]
    assert {r.metric_versions["epr_plus"] for r in edits} == {raised.version}
    assert {"epr_over_random", "precision_area"} <= edits[0].metric_versions.keys()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from casl_bench.runs.cell import EditCells

    out, real, cells = tmp_path / "resumed", EditCells.run, []

    def interrupt_third(self: EditCells, cell: Any) -> CellRecord:
        cells.append(cell.label)
        if len(cells) == 3:
            raise KeyboardInterrupt
        return real(self, cell)

    monkeypatch.setattr(EditCells, "run", interrupt_third)
    with pytest.raises(KeyboardInterrupt):
        run(config(out))
    assert run(config(out)) == 0
    assert len(cells) == 12  # eleven cells, the interrupted one twice
    assert comparable(out) == comparable(finished)


@pytest.mark.slow
def test_a_method_that_gives_nan_fails_alone(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "nan"
    shutil.copytree(finished, out)
    assert run(config(out, methods=("nan_method", "casl"))) == 3
    records = comparable(out)
    assert records["edit/nan_method@None/hat"]["status"] == "failed"
    assert "NaN" in records["edit/nan_method@None/hat"]["error"]["message"]
    assert records["edit/casl@None/hat"]["status"] == "done"
    assert records["edit/random_rotation@nan_method/hat"]["status"] == "skipped"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _change_number(path: Path) -> None:
    stored = json.loads(path.read_text())
    stored["levels"][0]["goal"] = 99.0
    path.write_text(json.dumps(stored))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("cells/*/casl/hat/record.json", _change_number),
        ("cells/*/casl/hat/scores.npz", _truncate),
    ],
)
def test_a_damaged_file_is_made_again(
    finished: Path, tmp_path: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "damaged"
    shutil.copytree(finished, out)
    for path in out.glob(pattern):
        damage(path)
    with pytest.raises(InvalidBenchmarkError):
        list(RecordStore(out))
    assert run(config(out)) == 0
    assert comparable(out) == comparable(finished)


def test_a_control_out_of_its_bounds_makes_the_run_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from casl_bench_baselines.controls import IdentityEditor

    real = IdentityEditor.edit
    monkeypatch.setattr(IdentityEditor, "edit", lambda self, i, s: real(self, i, s) * 0.5)
    with pytest.raises(InvalidBenchmarkError, match="identity"):
        run(config(tmp_path / "invalid", methods=("asyrp",)))


def test_a_scorer_under_its_floor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from casl_bench.models.attribute_classifier import AttributeClassifier

    real = AttributeClassifier.logits
    monkeypatch.setattr(AttributeClassifier, "logits", lambda self, pixels: -real(self, pixels))
    with pytest.raises(InvalidBenchmarkError, match="floor"):
        run(config(tmp_path / "floor", methods=("asyrp",)))
    assert not list((tmp_path / "floor" / "cells").glob("*/asyrp"))


def test_picture_of_a_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from casl_bench.cli.main import main

    path = tmp_path / "hat.png"
    assert main(["picture", str(finished), "--concepts", "hat", "--out", str(path)]) == 0
    with Image.open(path) as picture:
        assert picture.width > 6 * 64  # source, reconstruction, three edits, oracle
        assert 2 * 64 < picture.height < 3 * 64 + 70  # a row per method, none for a control
    wrong = tmp_path / "hatt.png"
    assert main(["picture", str(finished), "--concepts", "hatt", "--out", str(wrong)]) == 2
    assert "did you mean 'hat'" in capsys.readouterr().err
    assert not wrong.exists()
