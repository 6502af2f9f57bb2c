"""Two run folders → a report; `--compare BASE` also runs both, and extends them once if needed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.core.option_types import expand_home
from casl_bench.gate.exact import compare_exactly
from casl_bench.gate.gate import Scope, gate, new_cell
from casl_bench.gate.log_ratio import calibrate
from casl_bench.gate.outputs import headline, write_outputs
from casl_bench.gate.run_side import RunSide, is_run, read_side
from casl_bench.gate.verdict import (
    ALPHA,
    ALPHA_OF_TWO_LOOKS,
    EXIT_OPEN,
    EXIT_PASSED,
    MIN_FITS,
    CellVerdict,
    GateReport,
    SideInfo,
    Verdict,
    exit_code,
)
from casl_bench.results.run_folder import RecordStore


@dataclass(frozen=True)
class GateOptions:
    """How to gate; without `calibrate_runs`, A/A runs to sample, there is no calibration."""

    tier: Literal["statistical", "exact", "both"] = "statistical"
    scope: Scope = field(default_factory=Scope)
    calibrate_runs: int = 0
    allow_missing_base: bool = False
    alpha: float = ALPHA


def gate_folders(
    base: Path, head: Path, options: GateOptions, notes: Sequence[str] = ()
) -> GateReport:
    """The report on two run folders; there is no base yet if its folder holds no record.

    Raises:
        UsageError: if the head holds no record.
        InvalidBenchmarkError: if the numbers of a side mean nothing.
    """
    head_side = read_side(head)
    if not is_run(base):
        return first_run_report(head_side, options, f"no base to compare with: {base}")
    base_side = read_side(base)
    cells: list[CellVerdict] = []
    all_notes = list(notes)
    if options.tier in ("exact", "both"):
        cells += compare_exactly(base_side, head_side, options.scope)
    if options.tier in ("statistical", "both"):
        calibration = None
        if options.calibrate_runs:
            calibration = calibrate(base_side, options.calibrate_runs)
            all_notes += calibration.notes()
        cells += gate(base_side, head_side, options.scope, calibration, options.alpha)
    code = exit_code(c.verdict for c in cells)
    cells.sort(key=lambda c: tuple(Verdict).index(c.verdict))
    return GateReport(
        tier=options.tier,
        exit_code=code,
        headline=headline(code, cells),
        base=side_info(base_side),
        head=side_info(head_side),
        cells=tuple(cells),
        notes=(*all_notes, *_note_on_single_fits(cells)),
    )


def first_run_report(head: RunSide, options: GateOptions, note: str) -> GateReport:
    """The report where there is no base, and why there is none: every cell is new."""
    code = EXIT_PASSED if options.allow_missing_base else EXIT_OPEN
    cells = tuple(new_cell(head, name, "first run", options.scope) for name in head.edits)
    return GateReport(
        tier=options.tier,
        exit_code=code,
        headline=f"casl_bench gate: first run, {note} (exit {code})",
        head=side_info(head),
        cells=cells,
    )


def error_report(error: BenchError, tier: str) -> GateReport:
    """The report where there is no verdict."""
    return GateReport(
        tier=tier,
        exit_code=error.exit_code,
        headline=headline(error.exit_code, (), str(error)),
        error=str(error),
    )


def side_info(side: RunSide) -> SideInfo:
    """Name, commit and suite of a run; not the path of its folder."""
    some = next((r for r in side.records if r.kind == "edit"), side.records[0])
    commits = {r.provenance.git_commit for r in side.records}
    dirty = {r.provenance.git_dirty for r in side.records}
    return SideInfo(
        where=side.where.name or str(side.where),
        commit=commits.pop() if len(commits) == 1 else None,
        dirty=None if dirty == {None} else True in dirty,
        suite=f"{some.suite.name} v{some.suite.version}",
    )


def _note_on_single_fits(cells: Sequence[CellVerdict]) -> list[str]:
    single = [c for c in cells if c.fits == 1 and any(e.varies_by == "images" for e in c.effects)]
    if not single:
        return []
    names = ", ".join(sorted({c.method for c in single}))
    return [
        f"One fit each, taken for deterministic: {names}. If a fit uses random numbers, name the "
        "method under --stochastic and run base and head with --fit-seeds 5."
    ]


# `--compare BASE`: base and head in one job.

OUTPUTS = "gate"
"""Folder of the outputs, within the head's run folder."""

_OWN_OPTIONS = ("--compare", "--out", "--fit-seeds")


@dataclass(frozen=True)
class HeadRun:
    """The run in question, as the command line describes it.

    `path_options` name files, e.g. "--plugin"; `run` makes as many fits of every method as it is
    given, keeping those that are done, and returns the exit code.
    """

    arguments: Sequence[str]
    path_options: frozenset[str]
    out: Path
    fit_seeds: int
    run: Callable[[int], int]


def compare_runs(
    base: str, head: HeadRun, options: GateOptions, here: Path, say: Callable[[str], None]
) -> int:
    """Run base and head, gate them, and extend both once where that could settle it.

    The base is a git revision, or a run folder, which is never run: it is extended as far as it has
    more fits than were asked for.

    Returns:
        The exit code: the gate's, or the head's own if the gate passed.

    Raises:
        BenchError: after the outputs were written.
    """
    outputs = head.out / OUTPUTS
    try:
        report, code = _compare(base, head, options, here)
    except BenchError as error:
        for line in write_outputs(error_report(error, options.tier), outputs):
            say(line)
        raise
    for line in write_outputs(report, outputs):
        say(line)
    say(report.headline)
    return code if report.exit_code == EXIT_PASSED else report.exit_code


def _compare(base: str, head: HeadRun, options: GateOptions, here: Path) -> tuple[GateReport, int]:
    with _opened(base, head, here) as (folder, most_fits, extend):
        try:
            extend(head.fit_seeds)
        except NoBaseError as error:
            code = head.run(head.fit_seeds)
            return first_run_report(read_side(head.out), options, str(error)), code
        code = head.run(head.fit_seeds)
        more = max(2 * head.fit_seeds, MIN_FITS)
        extendable = more <= most_fits
        if extendable:
            options = replace(options, alpha=ALPHA_OF_TWO_LOOKS)
        report = gate_folders(folder, head.out, options)
        if report.of(Verdict.INCONCLUSIVE) and extendable:
            extend(more)
            code = head.run(more)
            note = f"Extended once, from {head.fit_seeds} to {more} fits."
            report = gate_folders(folder, head.out, options, [note])
        return report, code


@contextmanager
def _opened(
    base: str, head: HeadRun, here: Path
) -> Iterator[tuple[Path, float, Callable[[int], None]]]:
    """The base's run folder, how many fits it can have at most, and a function that makes them."""
    folder = here / expand_home(base, "--compare")
    if folder.is_dir():
        fits = 1 + max((r.fit_seed for r in RecordStore(folder) if not r.control), default=0)
        yield folder, fits, lambda fits: None
        return
    with base_revision(base, here) as revision:
        out = head.out.with_name(f"{head.out.name}-base-{revision.commit[:12]}").absolute()

        def extend(fits: int) -> None:
            own = ["--out", str(out), "--fit-seeds", str(fits)]
            revision.run([*without_own(head.arguments), *own], head.path_options)
            _check_commit(revision, out)

        yield out, math.inf, extend


def without_own(arguments: Sequence[str]) -> list[str]:
    """A command line without the options that differ between base and head."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in _OWN_OPTIONS:
            kept.append(argument)
        skip = not skip and argument in _OWN_OPTIONS
    return kept


def _check_commit(revision: BaseRevision, out: Path) -> None:
    """Nothing would be compared if the base had been run by the code of the head."""
    if not revision.has_own_package or not is_run(out):
        return
    commits = {r.provenance.git_commit for r in RecordStore(out)}
    if commits != {revision.commit}:
        raise InvalidBenchmarkError(
            f"the base was not run by its own code: its records are of {sorted(map(str, commits))}",
            where=str(out),
            hint="remove the folder",
        )


# The code of another commit, in a checkout aside.

_RAN = (0, 3)
"""Exit codes of a run that left records: complete, or with cells that failed."""

_MAIN = """
import sys
try:
    from casl_bench.cli.main import main
except ImportError:  # commits before the folder `cli`
    from casl_bench.cli import main
sys.exit(main())
"""


class NoBaseError(Exception):
    """The commit lacks a file that the command names."""


@dataclass(frozen=True)
class BaseRevision:
    """A commit, by its full hash, checked out in `tree`; `top` is the repository's own folder."""

    commit: str
    tree: Path
    top: Path
    here: Path

    def run(self, arguments: Sequence[str], path_options: frozenset[str]) -> None:
        """Run `casl-bench ARGUMENTS` with this commit's code and files.

        Files that git tracks are the commit's; everything else, such as data, is taken from here.

        Raises:
            NoBaseError: if a tracked file that the command names is not in the commit.
            UsageError: if the commit's code refuses the command.
            InvalidBenchmarkError: if its run is invalid.
        """
        at = self.tree / self.here.relative_to(self.top)
        search = [str(self.tree), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *self._moved(arguments, path_options)],
            cwd=at if at.is_dir() else self.tree,
            # Commits of before would compute on several threads, and their fits differ.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,  # its table is not this command's output
        )
        if done.returncode in _RAN:
            return
        kind = InvalidBenchmarkError if done.returncode == 5 else UsageError
        raise kind(
            f"the run of the base ended with exit code {done.returncode}",
            where=self.commit[:12],
            hint="its own message stands above",
        )

    @property
    def has_own_package(self) -> bool:
        """Whether the commit holds the benchmark itself, not only a method of its user."""
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
        path = (self.here / expand_home(value)).resolve()
        if not path.is_relative_to(self.top) or not _git(self.top, "ls-files", "--", str(path)):
            return str(path)
        own = self.tree / path.relative_to(self.top)
        if not own.exists():
            raise NoBaseError(f"{value} is not in {self.commit[:12]}")
        return str(own)


@contextmanager
def base_revision(name: str, here: Path) -> Iterator[BaseRevision]:
    """Check a commit out aside, and remove the checkout again.

    Raises:
        UsageError: if `here` is no folder of a repository, or git resolves the name to no commit.
    """
    top = _git(here, "rev-parse", "--show-toplevel")
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    commit = _git(here, *asked)
    if not top or not commit:
        raise UsageError(
            f"'{name}' is neither a run folder nor a git revision",
            where="--compare",
            hint="give the folder of a run, a branch or a commit (in CI: fetch-depth 0)",
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
