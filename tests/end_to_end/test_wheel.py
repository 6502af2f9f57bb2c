"""A wheel, installed in an empty folder, is the whole benchmark and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.packaging]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "-w", str(folder), str(source)],
        check=True,
    )  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found


def test_it_holds_what_runs_and_no_sample_sheets(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for part in ("casl_bench/py.typed", "casl_bench/report/html/static/report.css",
                 "casl_bench/domains/assets/rendered_faces/unet/card.json",
                 "casl_bench_baselines/asyrp.py", "casl_bench/api/evaluate.py"):  # fmt: skip
        assert part in names
    assert [n for n in names if n.endswith((".png", ".ipynb")) or n.startswith("tests")] == []
    assert wheel.stat().st_size < 32e6


def test_it_runs_the_main_job_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site),
         str(wheel)],
        check=True,
    )  # fmt: skip
    packages = [str(site), *(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))]
    code = (
        f"import sys; sys.path += {packages!r}\n"
        "import casl_bench; assert casl_bench.__file__.startswith(sys.argv.pop(1))\n"
        "from casl_bench.cli.main import main; sys.exit(main())"
    )
    given = ["--quick", "--methods", "casl", "--concepts", "hat", "--jobs", "1"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(site), *given, "--cache", str(tmp_path / "cache")],
        cwd=empty, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "casl: 1 of 1 concept done" in done.stdout
    assert len(done.stdout.splitlines()) <= 25
    assert [p.name for p in empty.iterdir()] == ["runs"]
