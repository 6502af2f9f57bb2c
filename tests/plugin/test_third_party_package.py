"""A stranger's package, installed as a user would: found, checked, and harmless when broken."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from casl_bench.cli import main as cli
from casl_bench.conformance import check_method as conformance
from casl_bench.results.run_folder import RecordStore

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with both packages installed in it, as on a user's path."""
    target = tmp_path_factory.mktemp("site")
    for name in ("fake_casl_method", "broken_casl_method"):
        # The build leaves files beside the sources.
        project = tmp_path_factory.mktemp("source") / name
        shutil.copytree(HERE / name, project, ignore=shutil.ignore_patterns("__pycache__"))
        install(project, target)
    return target


@pytest.fixture
def installed(site, fresh_registry, monkeypatch):
    """Both packages are on this process's path."""
    monkeypatch.syspath_prepend(site)


def install(project: Path, target: Path) -> None:
    if importlib.util.find_spec("setuptools") and importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
        done = subprocess.run([*command, str(project)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    # Without build tools: what an installer would leave, made from the same pyproject.
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    (package,) = (p.parent for p in project.glob("*/__init__.py"))
    shutil.copytree(package, target / package.name)
    info = target / f"{package.name}-{settings['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {settings['name']}\nVersion: {settings['version']}\n"
    )
    points = settings["entry-points"]["casl_bench.methods"]
    lines = [f"{name} = {place}" for name, place in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[casl_bench.methods]", *lines]))


def test_list_shows_packages_and_files_and_names_the_broken_one_with_its_reason(site):
    path = os.pathsep.join([str(site), str(ROOT)])
    plugin = str(HERE / "single_file_method.py")
    done = subprocess.run(
        [sys.executable, "benchmark.py", "--list", "--plugin", plugin],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    for name in ("fake_casl_method/mean_difference", "darken", "casl", "identity"):
        assert name in words
    # A method is listed under the one name that `--methods` takes.
    assert "mean_difference" not in words
    assert "broken_casl_method" in done.stdout
    assert "RuntimeError: this package needs a library from the future" in done.stdout
    assert "broken_casl_method/hopeless" not in words


def test_asking_for_the_broken_method_tells_why_it_is_missing(installed, capsys):
    assert cli.main(["--methods", "broken_casl_method/hopeless", "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: unknown method 'broken_casl_method/hopeless'")
    assert "this package needs a library from the future" in line


def test_a_mistyped_name_is_offered_with_its_package(installed, capsys):
    assert cli.main(["--methods", "fake_casl_method/mean_diference", "--dry-run"]) == 2
    assert "did you mean 'fake_casl_method/mean_difference'?" in capsys.readouterr().err


def test_a_whole_run_of_the_package_on_a_plugin_s_data_set(installed, tmp_path, capsys):
    method = "fake_casl_method/mean_difference"
    command = ["--plugin", str(HERE / "toy_world_plugin.py"), "--datasets", "toy_shapes", "--quick"]
    command += ["--methods", method, "--concepts", "bright", "--device", "cpu"]
    assert cli.main([*command, "--out", str(tmp_path / "run")]) == 0
    table = capsys.readouterr().out
    assert "toy_shapes (toy, " in table
    records = {(r.kind, r.method, r.beside): r for r in RecordStore(tmp_path / "run")}
    for beside in (None, method):
        name = "random_rotation" if beside else method
        record = records["edit", name, beside]
        assert (record.status, record.concept) == ("done", "bright")
        assert name in (tmp_path / "run" / "table.md").read_text()


def test_the_package_keeps_every_rule(installed, capsys):
    assert conformance.main(["fake-casl-method"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("checking fake_casl_method/mean_difference\n")
    assert "FAIL" not in shown
    assert "not run" not in shown


def test_conformance_of_the_broken_package_tells_why_there_is_nothing_to_check(installed, capsys):
    assert conformance.main(["broken_casl_method"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "this package needs a library from the future" in captured.err
