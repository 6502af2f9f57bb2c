"""A headless Chromium of the system, and a report for it to open.

`CASL_BENCH_REPORT` names a report to look at in the place of the small one that is made here;
`CASL_BENCH_SCREENSHOTS` a folder for what was seen.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from casl_bench.report.html.pages import write_report

_FAKE_RUN = Path(__file__).parents[1] / "unit" / "report" / "html" / "fake_run.py"
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_run", _FAKE_RUN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright comes with 'test'")
    path = next((found for name in _CHROMIUMS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(_CHROMIUMS)})")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def small(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of drawn numbers."""
    folder = tmp_path_factory.mktemp("browser")
    run = fake.FakeRun(folder / "run").write()
    return write_report(run.source, folder / "report")


@pytest.fixture(scope="session")
def report(small: Path) -> Path:
    """The folder of the report that is to be looked at."""
    named = os.environ.get("CASL_BENCH_REPORT")
    return Path(named).resolve() if named else small.parent


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("CASL_BENCH_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
