"""The rooms in pyproject.toml hold: each imports those below it, methods stay apart."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_contracts_hold(tmp_path: Path) -> None:
    pytest.importorskip("importlinter", reason="import-linter comes with the extra 'test'")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()",
         "--config", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_short() -> None:
    """A file answers one question."""
    sources = [p for d in ("casl_bench", "baselines") for p in (ROOT / d).rglob("*.py")]
    long = {
        str(p.relative_to(ROOT)): n
        for p in sources
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 750
    }
    assert long == {}


@pytest.mark.parametrize("module", ["casl_bench.cli.main", "casl_bench.runs.suites"])
def test_help_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_only_a_run_on_dask_imports_dask() -> None:
    found = {
        (str(path.relative_to(ROOT)), isinstance(parent, ast.Module))
        for path in (ROOT / "casl_bench").rglob("*.py")
        for parent in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
        if (name or "").split(".")[0] in ("dask", "dask_jobqueue", "distributed")
    }
    assert found == {("casl_bench/runs/parallel.py", False)}
