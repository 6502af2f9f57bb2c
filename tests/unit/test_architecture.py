"""The picture in pyproject.toml holds: stages import downwards, entrants stay apart."""

from __future__ import annotations

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
    """One idea a file."""
    sources = [p for d in ("casl_bench", "baselines") for p in (ROOT / d).rglob("*.py")]
    long = {
        str(p.relative_to(ROOT)): n
        for p in sources
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


@pytest.mark.parametrize("module", ["casl_bench.cli", "casl_bench.runs.planning.config"])
def test_help_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
