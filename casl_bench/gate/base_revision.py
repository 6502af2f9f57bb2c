"""The code of another commit, run by the command of this one, in the same job."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casl_bench.core.errors import InvalidBenchmarkError, UsageError

_RAN = (0, 3)
"""Exit codes of a run that left records: whole, or with cells that failed."""


class NoBaseError(Exception):
    """The commit has no such run: what the command names is not in it."""


@dataclass(frozen=True)
class BaseRevision:
    """A commit, checked out aside.

    Attributes:
        commit: its full hash.
        tree: the folder it is checked out in.
        top: the repository's own folder.
        here: where the command was given.
    """

    commit: str
    tree: Path
    top: Path
    here: Path

    def run(self, arguments: Sequence[str], path_options: frozenset[str]) -> None:
        """Run `casl-bench ARGUMENTS` with this commit's code and files.

        Files that git tracks are the commit's; everything else, such as data, is taken from here.

        Args:
            arguments: of the command.
            path_options: those of its options that name files, e.g. "--plugin".

        Raises:
            NoBaseError: if a tracked file that the command names is not in the commit.
            UsageError: if the commit's code refuses the command.
            InvalidBenchmarkError: if its run is invalid.
        """
        at = self.tree / self.here.relative_to(self.top)
        search = [str(self.tree), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-m", "casl_bench.cli", *self._moved(arguments, path_options)]
        done = subprocess.run(
            command,
            cwd=at if at.is_dir() else self.tree,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            stdout=subprocess.DEVNULL,  # its table is not this command's output
        )
        if done.returncode in _RAN:
            return
        kind = InvalidBenchmarkError if done.returncode == 5 else UsageError
        raise kind(
            f"the run of the base ended with exit code {done.returncode}",
            where=self.commit[:12],
            mend="its own message stands above",
        )

    @property
    def has_own_package(self) -> bool:
        """Whether the commit holds the benchmark itself, not only somebody's method."""
        return (self.tree / "casl_bench" / "__init__.py").is_file()

    def _moved(self, arguments: Sequence[str], path_options: frozenset[str]) -> list[str]:
        moved, is_path = [], False
        for argument in arguments:
            option, equals, value = argument.partition("=")
            if is_path:
                argument = self._path(argument)
            elif equals and option in path_options:
                argument = f"{option}={self._path(value)}"
            is_path = argument in path_options
            moved.append(argument)
        return moved

    def _path(self, value: str) -> str:
        path = (self.here / value).resolve()
        if not path.is_relative_to(self.top) or not _git(self.top, "ls-files", "--", str(path)):
            return str(path)
        own = self.tree / path.relative_to(self.top)
        if not own.exists():
            raise NoBaseError(f"{value} is not in {self.commit[:12]}")
        return str(own)


@contextmanager
def base_revision(name: str, here: Path) -> Iterator[BaseRevision]:
    """Check a commit out aside, and take it away again.

    Args:
        name: anything that git resolves to a commit.
        here: a folder of the repository.

    Raises:
        UsageError: if it is no folder of a repository, or there is no such commit.
    """
    top = _git(here, "rev-parse", "--show-toplevel")
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    commit = _git(here, *asked)
    if not top or not commit:
        raise UsageError(
            f"'{name}' is neither a run folder nor a git revision",
            where="--compare",
            mend="give the folder of a run, a branch or a commit (in CI: fetch-depth 0)",
        )
    with tempfile.TemporaryDirectory(prefix="casl-bench-base-") as folder:
        tree = Path(folder).resolve() / "tree"
        if _git(here, "worktree", "add", "--detach", "--quiet", str(tree), commit) is None:
            raise UsageError("git cannot check the base out", where=commit[:12])
        try:
            yield BaseRevision(commit, tree, Path(top).resolve(), here.resolve())
        finally:
            _git(here, "worktree", "remove", "--force", str(tree))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
