"""Every exit code of the gate, through the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from casl_bench.cli.main import main
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

ROOT = Path(__file__).parents[2]
RUNS = {
    "base": MadeUpRun({"casl": MadeUpMethod()}, fits=2),
    "same": MadeUpRun({"casl": MadeUpMethod()}, fits=2),
    "worse": MadeUpRun({"casl": MadeUpMethod(damage=0.3)}, fits=2),
    "other seed": MadeUpRun({"casl": MadeUpMethod()}, fits=2, changes={"seed": 1}),
    "other unit": MadeUpRun({"casl": MadeUpMethod()}, fits=2, unit=0.5),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, run in RUNS.items():
        write_made_up_run(folder / name, run)
    return folder


@pytest.mark.parametrize(
    ("head", "code", "said"),
    [
        ("same", 0, "0 regressions, 1 without a loss (exit 0)"),
        ("worse", 1, "1 regression (exit 1)"),
        ("absent", 2, "no verdict: no records"),
        ("other seed", 4, "1 not comparable (exit 4)"),
        ("other unit", 5, "no verdict: the random directions of made_up"),
    ],
)
def test_every_exit_code_writes_every_output(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], head: str, code: int, said: str,
) -> None:  # fmt: skip
    step = tmp_path / "step.md"
    monkeypatch.chdir(runs)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["gate", "base", head, "--out", str(tmp_path / "out")]) == code
    assert said in step.read_text(encoding="utf-8").splitlines()[0]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "gate.json", "junit.xml", "summary.md", "bencher.json", "github_action_benchmark.json",
    }  # fmt: skip
    found = capsys.readouterr()
    assert found.out.count("::error") == (code in (1, 2, 5))
    assert found.err.count("\n") == (code in (2, 5)) and "Traceback" not in found.err


def test_a_first_run_passes_if_allowed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gate", str(tmp_path / "none"), str(runs / "base")]
    assert main(command) == 4
    assert main([*command, "--allow-missing-base"]) == 0
    assert "first run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("gate a b --accept", "--accept is gone: keep gate.json"),
        ("gate a b --history h.jsonl", "--history is gone: keep gate.json"),
        ("gate a b --speed a.json b.json", "--speed is gone: use pytest-benchmark's"),
        ("trend --out trend.svg", "trend is gone: send"),
        ("gate-rates runs/base", "gate-rates is gone: use casl-bench study gate-rates"),
    ],
)
def test_what_is_gone_names_its_successor(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_exact_tier_and_its_golden_run(runs: Path, tmp_path: Path) -> None:
    golden = str(tmp_path / "golden")
    assert main(["golden", str(runs / "base"), golden]) == 0
    assert main(["gate", golden, str(runs / "same"), "--tier", "exact"]) == 0
    assert main(["gate", golden, str(runs / "worse"), "--tier", "exact"]) == 1


def test_a_gate_loads_no_model_and_no_engine(runs: Path) -> None:
    heavy = ("torch", "dask", "distributed", "matplotlib", "pandas", "joblib")
    code = (
        "import sys; from casl_bench.cli.main import main; code = main(['gate', 'base', 'same']); "
        f"sys.exit(code or bool(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=runs, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
