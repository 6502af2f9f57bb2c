"""Baselines and controls run whatever else is called `baselines`; none is missing in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from casl_bench.cli.main import main
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.methods.method import CONTROLS, METHODS, check_controls
from casl_bench.runs.names import load_registries

ROOT = Path(__file__).parents[2]
FILES = {path.stem for path in (ROOT / "baselines").glob("[a-z]*.py")}
NAMES = sorted((FILES - {"controls", "random_controls"}) | set(CONTROLS))
LIST = "import sys; from casl_bench.cli.main import main; sys.exit(main(['--list']))"


@pytest.fixture
def other_baselines(tmp_path: Path) -> Path:
    """A working folder with a package called `baselines` that has nothing to do with us."""
    package = tmp_path / "baselines"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('another package')\n")
    return tmp_path


def listed(command: Sequence[str], folder: Path, path: Sequence[Path]) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("as_script", [True, False])
def test_another_folder_of_that_name_hides_nothing(other_baselines: Path, as_script: bool) -> None:
    command = [str(ROOT / "benchmark.py"), "--list"] if as_script else ["-c", LIST]
    text = listed(command, other_baselines, [other_baselines, ROOT])
    assert [name for name in NAMES if name not in text.split()] == []


@pytest.mark.slow
@pytest.mark.packaging
@pytest.mark.parametrize("editable", [False, True])
def test_an_installed_package_has_them_all(other_baselines: Path, editable: bool) -> None:
    site = other_baselines / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = other_baselines / "source"
    copied = ["git", "clone", "--quiet", "--shared", str(ROOT), str(source)]
    subprocess.run(copied, check=True)
    what = ["--editable", str(source)] if editable else [str(source)]
    subprocess.run([*pip, "--target", str(site), *what], check=True)
    # Without the tests' own site (-S), whose editable installation would be found first.
    packages = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    command = f"import site, sys; sys.path += {packages!r}; site.addsitedir({str(site)!r}); {LIST}"
    text = listed(["-S", "-c", command], other_baselines, [other_baselines])
    assert [name for name in NAMES if name not in text.split()] == []


def test_a_missing_control_makes_the_benchmark_invalid(
    own_entrants: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_registries()
    check_controls()
    assert {n for n in METHODS if METHODS.factory(n).info.control} == set(CONTROLS)
    monkeypatch.setattr(METHODS, "_factories", {**METHODS._factories})
    monkeypatch.setattr(METHODS, "_broken", {"casl_bench_baselines.controls": "SyntaxError: no"})
    del METHODS._factories["oracle"]
    with pytest.raises(InvalidBenchmarkError, match=r"control 'oracle' .*SyntaxError") as error:
        check_controls()
    assert error.value.exit_code == 5
    assert main(["--quick", "--methods", "h_linear", "--concepts", "hat", "--dry-run"]) == 5
    assert "control 'oracle' is missing" in capsys.readouterr().err
