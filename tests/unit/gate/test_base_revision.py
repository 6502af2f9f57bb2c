"""Another commit's code and files are what runs, in a checkout that is gone afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.gate.compare_runs import NoBaseError, base_revision

# Stands for the benchmark: tells how it was called, and ends as it is told.
CLI = """
import json, pathlib, sys
arguments = sys.argv[1:]
out = pathlib.Path(arguments[arguments.index("--out") + 1])
plugin = pathlib.Path(arguments[arguments.index("--plugin") + 1]).read_text()
out.write_text(json.dumps({"arguments": arguments, "plugin": plugin, "code": __file__}))

def main():
    return int((pathlib.Path(__file__).parent / "code").read_text())
"""
OPTIONS = frozenset({"--plugin", "--data-root", "--out"})


def git(repository: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(repository), *who, *arguments],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout


def write(repository: Path, **files: str) -> None:
    for name, text in files.items():
        path = repository / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: a method, and the same method changed, with one more beside it."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet")
    write(repository, mine_py="one", work__x="")
    (repository / "casl_bench").mkdir()
    for name, text in {"__init__.py": "", "cli.py": CLI, "code": "0"}.items():
        (repository / "casl_bench" / name).write_text(text, encoding="utf-8")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "one")
    write(repository, mine_py="two", later_py="two")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "two")
    return repository


def run(repository: Path, plugin: str, *more: str) -> dict[str, object]:
    out = repository.parent / "told.json"
    with base_revision("HEAD~1", repository / "work") as revision:
        assert revision.has_own_package
        revision.run(["--plugin", plugin, *more, "--out", str(out)], OPTIONS)
        assert str(revision.tree) in out.read_text(encoding="utf-8")
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_tracked_files_are_the_commits(repository: Path) -> None:
    assert run(repository, "../mine.py")["plugin"] == "one"
    assert run(repository, str(repository / "mine.py"))["plugin"] == "one"


def test_other_files_are_from_here(repository: Path) -> None:
    (repository / "work" / "data").mkdir()
    (repository / "work" / "own.py").write_text("mine", encoding="utf-8")
    told = run(repository, "own.py", "--data-root=data", "--methods", "work")
    assert told["plugin"] == "mine"
    assert isinstance(told["arguments"], list)
    assert f"--data-root={repository / 'work' / 'data'}" in told["arguments"]
    assert "work" in told["arguments"]


def test_what_the_commit_has_not_is_no_base(repository: Path) -> None:
    with pytest.raises(NoBaseError, match=r"later\.py is not in"):
        run(repository, "../later.py")


@pytest.mark.parametrize(
    ("code", "error"), [("2", UsageError), ("5", InvalidBenchmarkError), ("3", None)]
)
def test_how_it_ends_is_passed_on(
    repository: Path, code: str, error: type[BenchError] | None
) -> None:
    (repository / "casl_bench" / "code").write_text(code, encoding="utf-8")
    git(repository, "commit", "--quiet", "--all", "--message", "three")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "four")
    if error is None:
        run(repository, "../mine.py")
        return
    with pytest.raises(error, match=f"exit code {code}"):
        run(repository, "../mine.py")
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_no_such_commit_is_told(repository: Path, tmp_path: Path) -> None:
    for name, here in (("no-such", repository), ("--help", repository), ("HEAD", tmp_path)):
        with (
            pytest.raises(UsageError, match="neither a run folder nor a git revision"),
            base_revision(name, here),
        ):
            pass
