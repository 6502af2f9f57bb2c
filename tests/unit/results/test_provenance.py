"""Provenance is collected with or without a checkout."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from casl_bench.results import provenance as module
from casl_bench.results.provenance import collect_provenance, git_state, package_versions


def test_it_says_where_a_number_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/someone/a", "b"])
    p = collect_provenance(device="cpu", batch_size=8, seconds={"fit": 1.5})
    assert p.device == "cpu" and p.argv == ("a", "b") and p.seconds == {"fit": 1.5}
    assert datetime.fromisoformat(p.started_at).tzinfo is not None
    assert {"python", "torch", "numpy", "pydantic"} <= set(p.packages)
    assert p.platform and p.package_version


def test_no_checkout_and_no_git_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_state(tmp_path) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) == (None, None)


def test_another_projects_checkout_is_not_ours(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert git_state(tmp_path) == (None, None)


def test_a_checkout_gives_its_commit_and_whether_it_is_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked = tmp_path / "module.py"
    tracked.write_text("")
    monkeypatch.setattr(module, "__file__", str(tracked))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    commit, dirty = git_state(tmp_path)
    assert commit is not None and len(commit) == 40 and dirty is False
    tracked.write_text("x = 1\n")
    assert git_state(tmp_path) == (commit, True)


def test_absent_packages_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("numpy", "no-such-package"))
    assert set(package_versions()) == {"python", "numpy"}
