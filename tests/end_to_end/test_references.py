"""A run of one method: what it must beat runs with it; a fit without chance is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.analysis.analyse import analyse
from casl_bench.report.tables import render_tables
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import RunConfig
from tests.support.tiny_suite import as_measured, tiny_suite

pytestmark = pytest.mark.slow


def test_references_stand_in_every_table(toy_registered: None, tmp_path: Path) -> None:
    suite = tiny_suite(references=True, fit_seeds=2)
    config = RunConfig(
        methods=("asyrp",), datasets=("toy_shapes",), concepts=("bright",), suite=suite, seed=0,
        fit_seeds=suite.fit_seeds, device="cpu", out=tmp_path / "run", cache=tmp_path / "cache",
    )  # fmt: skip
    assert runner.run(config, SilentProgress()) == 0
    edits = [r for r in RecordStore(config.out) if r.kind == "edit" and not r.control]
    assert {(r.method, r.fit_seed) for r in edits} == {
        ("asyrp", 0), ("asyrp", 1), ("pixel_mean_difference", 0), ("x_T_mean_difference", 0),
    }  # fmt: skip
    assert {r.method: r.supervision for r in edits} == {
        "asyrp": "text", "pixel_mean_difference": "labels", "x_T_mean_difference": "labels",
    }  # fmt: skip
    assert {r.status for r in edits} == {"done"}
    table = render_tables(as_measured(analyse([config.out])))
    for name in ("asyrp", "pixel_mean_difference", "x_T_mean_difference", "template"):
        assert f"| {name} " in table
