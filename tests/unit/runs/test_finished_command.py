"""A finished command is answered from its folder, and by nothing that has changed since."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from casl_bench.cli import run as run_module
from casl_bench.cli.main import main
from casl_bench.runs import run_lock
from casl_bench.runs.run_lock import FINISHED, FinishedCommand
from casl_bench.runs.suites import RunConfig, Shard


def command(out: Path, **asked: str) -> FinishedCommand:
    found = FinishedCommand.of({"seed": "0"} | asked, out, "quick", ("rendered_faces",), 0, None)
    assert found is not None
    return found


def fill(out: Path) -> None:
    for name in ("manifest.json", "table.md", "summary.txt", "cells/a/record.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"of {name}\n")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    fill(tmp_path)
    assert not command(tmp_path).is_current()
    command(tmp_path).write()
    assert command(tmp_path).is_current() and not command(tmp_path, seed="1").is_current()
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda out: (out / "cells" / "a" / "record.json").write_text("of another record"),
        lambda out: (out / "table.md").unlink(),
        lambda out: (out / "cells" / "b").write_text("more"),
        lambda out: os.utime(out / "table.md", (1, 1)),
        lambda out: (out / FINISHED).write_text("{}"),
    ],
)
def test_changed_results_are_not_current(out: Path, change: Callable[[Path], object]) -> None:
    change(out)
    assert not command(out).is_current()


def test_other_code_baselines_or_libraries_are_another_run(
    out: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    baselines = tmp_path_factory.mktemp("baselines")
    (baselines / "method.py").write_text("edited = False")
    with monkeypatch.context() as patch:
        patch.setattr(run_lock, "baselines_folder", lambda: baselines)
        assert not command(out).is_current()
    with monkeypatch.context() as patch:
        patch.setattr(run_lock, "environment", lambda: {"torch": "0.0"})
        assert not command(out).is_current()
    assert command(out).is_current()


def test_photographs_and_installed_plugins_are_always_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FinishedCommand.of({}, tmp_path, "quick", ("celeba_hq",), 0, None) is None
    assert FinishedCommand.of({}, tmp_path, "paper", ("all",), 0, None) is None
    every = FinishedCommand.of({}, None, "quick", ("all",), 3, Shard.parse("1/2"))
    assert every is not None and every.out.name.endswith("-quick-seed3-shard1of2")
    plugin = SimpleNamespace(groups=("console_scripts", "casl_bench.methods"))
    monkeypatch.setattr(run_lock, "entry_points", lambda: plugin)
    assert FinishedCommand.of({}, tmp_path, "quick", ("rendered_faces",), 0, None) is None


def test_the_same_command_again_is_its_table_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: RunConfig) -> int:
        fill(config.out)
        return 0

    out = tmp_path / "run"
    monkeypatch.setattr(run_module, "_run_and_report", run)
    options = ["--methods", "casl", "--datasets", "all", "--quick", "--out", str(out)]
    assert main(options) == 0
    again = (
        "import sys; from casl_bench.cli.main import main; code = main(sys.argv[1:]); "
        "loaded = {'torch', 'diffusers', 'open_clip', 'sklearn'} & set(sys.modules); "
        "sys.exit(str(loaded) if loaded else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", again, *options, "--jobs", "2"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "of summary.txt\n" and "finished before" in done.stderr


def test_a_run_with_failed_cells_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_run_and_report", lambda config: 3)
    out = tmp_path / "run"
    fill(out)
    options = ["--methods", "casl", "--quick", "--out", str(out)]
    assert main(options) == 3
    assert not (out / FINISHED).exists()
