"""Methods broken on purpose, run for real on the toy domain, fail; sound ones pass."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from casl_bench.cli import run as run_module
from casl_bench.cli.main import main
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS
from casl_bench.gate.compare_runs import GateOptions, gate_folders
from casl_bench.gate.verdict import Verdict
from casl_bench.methods.method import METHODS
from casl_bench.runs.executor import run
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import RunConfig
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

PLUGIN = Path(__file__).parents[1] / "plugin" / "painters_plugin.py"
FAULTS = ("wrong_sign", "half_strength", "shuffled_decoder", "one_row_off")
SUITE = tiny_suite(strengths=(0.5, 1.0, 2.0), random_draws=2, test_images_per_concept=4,
                   test_pool_images=16)  # fmt: skip


@pytest.fixture
def painters(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin's methods and its domain; forgotten after the test."""
    load_registries()
    for registry in (METHODS, DATASETS, DOMAINS):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    spec = importlib.util.spec_from_file_location("painters_plugin", PLUGIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_broken_method_fails_and_no_sound_one(
    painters: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def verdicts(out: Path) -> dict[str, Verdict]:
        config = RunConfig(
            methods=FAULTS, datasets=("toy_shapes",), concepts=("striped",), suite=SUITE,
            seed=0, device="cpu", out=out, cache=out / "cache",
        )  # fmt: skip
        assert run(config, SilentProgress()) == 0
        report = gate_folders(tmp_path / "base", out, GateOptions())
        return {c.method: c.verdict for c in report.cells}

    assert verdicts(tmp_path / "base") == dict.fromkeys(FAULTS, Verdict.PASS)
    # Everything but the methods' own cells is the same, and takes most of the time.
    shutil.copytree(tmp_path / "base", tmp_path / "head")
    for name in FAULTS:
        shutil.rmtree(tmp_path / "head" / "cells" / "toy_shapes" / name)
    monkeypatch.setattr(painters, "FAULTY", True)
    assert verdicts(tmp_path / "head") == dict.fromkeys(FAULTS, Verdict.FAIL)


@pytest.mark.parametrize(("damage", "code"), [(0.2, 0), (0.3, 1)])
def test_compare_runs_the_head_and_gates_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: float, code: int
) -> None:
    def write(out: Path, method: MadeUpMethod) -> None:
        write_made_up_run(out, MadeUpRun({"casl": method}, dataset="rendered_faces"))

    def run_and_report(config: RunConfig) -> int:
        write(config.out, MadeUpMethod(damage=damage))
        return 0

    monkeypatch.setattr(run_module, "_run_and_report", run_and_report)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    write(tmp_path / "base", MadeUpMethod())
    command = ["--methods", "casl", "--out", str(tmp_path / "head")]
    assert main([*command, "--compare", str(tmp_path / "base")]) == code
    page = (tmp_path / "head" / "gate" / "summary.md").read_text(encoding="utf-8")
    assert f"(exit {code})" in page.splitlines()[0]
