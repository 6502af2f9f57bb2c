"""A method's record says what its fit took, whichever cell made the fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from casl_bench.analysis.analyse import analyse
from casl_bench.cache.store import default_cache
from casl_bench.report.tables import render_tables
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import RunConfig, suite
from tests.support.tiny_suite import as_measured

pytestmark = pytest.mark.slow

TINY = suite("quick").model_copy(
    update={
        "num_steps": 6,
        "train_images": 24,
        "validation_images": 3,
        "test_pool_images": 24,
        "test_images_per_concept": 5,
        "strengths": (0.5, 1.0),
        "fit_image_steps": 24,
        "references": False,
        "probe_train_images": 24,
        "probe_test_images": 24,
    }
)
ASYRP = CellKey("rendered_faces", "edit", "asyrp", None, "hat")
BESIDE = CellKey("rendered_faces", "edit", "random_rotation", "asyrp", "hat")


def run(out: Path) -> RecordStore:
    """A run that makes its records itself, of inversions and fits that may be there."""
    load_registries()
    shutil.rmtree(default_cache() / "records", ignore_errors=True)
    config = RunConfig(
        methods=("asyrp",), datasets=("rendered_faces",), concepts=("hat",), suite=TINY, seed=0,
        device="cpu", out=out,
    )  # fmt: skip
    assert runner.run(config, SilentProgress()) == 0
    return RecordStore(out)


def record(store: RecordStore, key: CellKey) -> CellRecord:
    found = store.find(key)
    assert found is not None and found.status == "done"
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cost") / "run"
    run(out)
    return out


def test_the_methods_own_record_has_the_time_of_its_fit(finished: Path) -> None:
    store = RecordStore(finished)
    own, beside = record(store, ASYRP).provenance, record(store, BESIDE).provenance
    assert own.fit_seconds is not None
    assert 0 < own.fit_seconds <= own.seconds["fit"]  # it makes the fit, its control reads it
    assert own.fit_seconds > 0.5 * own.seconds["fit"]
    assert (beside.fit_seconds, beside.fit_peak_memory_mb) == (None, None)
    assert own.threads is not None and own.threads >= 1
    if Path("/proc/self/clear_refs").exists():
        assert own.fit_peak_memory_mb is not None and own.fit_peak_memory_mb > 100


def test_a_fit_that_is_read_again_keeps_its_time(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    for key in (ASYRP, BESIDE):
        shutil.rmtree(RecordStore(out).folder(key))
    again, first = record(run(out), ASYRP), record(RecordStore(finished), ASYRP)
    assert again.provenance.fit_seconds == first.provenance.fit_seconds
    assert again.provenance.fit_peak_memory_mb == first.provenance.fit_peak_memory_mb
    assert again.record_id == first.record_id


def test_the_cost_table_is_filled(finished: Path) -> None:
    text = render_tables(as_measured(analyse([finished]))).split("### Cost\n")[1]
    row = next(line for line in text.splitlines() if line.startswith("| asyrp "))
    assert "—" not in row


def test_the_record_of_the_reconstruction_has_what_the_inversions_took(finished: Path) -> None:
    shared = record(RecordStore(finished), CellKey("rendered_faces", "reconstruction"))
    passes = 2 * TINY.num_steps * TINY.train_images
    train = shared.measurements["inversion.train"]
    assert (train.value, train.n, train.unit) == (passes, TINY.train_images, "U-Net passes")
    per_split = [
        m.value for name, m in shared.measurements.items() if name.startswith("inversion.")
    ]
    assert len(per_split) == 3 and sum(v or 0.0 for v in per_split) == shared.cost.unet_calls
    for split in ("train", "validation", "test"):
        assert shared.provenance.seconds[f"inversion {split}"] > 0


def test_inversions_that_are_read_again_keep_their_time(finished: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "again", CellKey("rendered_faces", "reconstruction")
    shutil.copytree(finished, out)
    shutil.rmtree(RecordStore(out).folder(key))
    again, first = record(run(out), key), record(RecordStore(finished), key)
    name = "inversion train"
    assert again.provenance.seconds[name] == first.provenance.seconds[name]
    assert again.record_id == first.record_id
