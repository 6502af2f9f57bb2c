"""Every exit code of the gate, through the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from casl_bench.cli import main as cli
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmark.py"

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


def benchmark(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    return subprocess.run([sys.executable, str(BENCHMARK), *arguments], cwd=cwd,
                          capture_output=True, text=True, env=known | environment)  # fmt: skip


@pytest.mark.parametrize(
    ("head", "code", "said"),
    [
        ("same", 0, "0 regressions, 1 without a loss (exit 0)"),
        ("worse", 1, "1 regression (exit 1)"),
        ("absent", 2, "no verdict: no records"),
        ("other seed", 4, "1 not comparable (exit 4)"),
        ("other unit", 5, "no verdict: the random draws of made_up"),
    ],
)
def test_every_exit_code_writes_every_output(
    runs: Path, tmp_path: Path, head: str, code: int, said: str
) -> None:
    step = tmp_path / "step.md"
    done = benchmark(runs, "gate", "base", head, "--out", str(tmp_path / "out"),
                     GITHUB_STEP_SUMMARY=str(step), GITHUB_ACTIONS="true")  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in step.read_text(encoding="utf-8").splitlines()[0]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "gate.json", "junit.xml", "summary.md", "bencher.json", "github_action_benchmark.json",
    }  # fmt: skip
    assert done.stdout.count("::error") == (code in (1, 2, 5))
    assert done.stderr.count("\n") == (code in (2, 5)) and "Traceback" not in done.stderr


def test_a_first_run_may_pass_and_be_accepted(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gate", str(tmp_path / "none"), str(runs / "base")]
    history = ["--history", str(tmp_path / "history.jsonl")]
    assert cli.main(command) == 4
    assert cli.main([*command, "--allow-missing-base", "--accept", *history]) == 0
    assert "first run" in capsys.readouterr().out
    assert cli.main(["trend", *history]) == 0
    assert capsys.readouterr().out.startswith("made_up/casl: 1 runs")


def test_the_exact_tier_and_its_golden_run(runs: Path, tmp_path: Path) -> None:
    golden = str(tmp_path / "golden")
    assert cli.main(["golden", str(runs / "base"), golden]) == 0
    assert cli.main(["gate", golden, str(runs / "same"), "--tier", "exact"]) == 0
    assert cli.main(["gate", golden, str(runs / "worse"), "--tier", "exact"]) == 1


def test_a_gate_loads_no_model_and_no_engine(runs: Path) -> None:
    heavy = ("torch", "dask", "distributed", "matplotlib", "ruptures")
    code = (
        "import sys; from casl_bench.cli.main import main; code = main(['gate', 'base', 'same']); "
        f"sys.exit(code or bool(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=runs, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
