"""A small run folder, and the report of it, made once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from casl_bench.report.html.pages import write_report


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The file beside this one."""
    spec = importlib.util.spec_from_file_location(
        "fake_run", Path(__file__).with_name("fake_run.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fake.FakeRun(tmp_path_factory.mktemp("fake") / "run").write()


@pytest.fixture(scope="session")
def report(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    write_report(run.source, folder)
    return folder
