"""`--compare BASE`: base and head in one job, extended once where the noise decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from casl_bench.core.errors import BenchError, InvalidBenchmarkError
from casl_bench.gate.base_revision import BaseRevision, NoBaseError, base_revision
from casl_bench.gate.gate_report import GateReport
from casl_bench.gate.gate_run import GateOptions, error_report, first_run_report, gate_folders
from casl_bench.gate.run_side import is_run, read_side
from casl_bench.gate.verdict import ALPHA_OF_TWO_LOOKS, EXIT_PASSED, MIN_FITS, Verdict
from casl_bench.gate.write_outputs import write_outputs
from casl_bench.records.record_store import RecordStore

OUTPUTS = "gate"
"""Folder of the outputs, within the head's run folder."""

_OWN_OPTIONS = ("--compare", "--out", "--fit-seeds")


@dataclass(frozen=True)
class HeadRun:
    """The run that is asked about, as the command line describes it.

    Attributes:
        arguments: of the command.
        path_options: those of its options that name files.
        out: its folder.
        fit_seeds: fits of every method.
        run: runs it with so many fits, of which those done already are kept; gives the exit code.
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

    A base that is a folder is never run: it is extended as far as it has more fits than were asked
    for.

    Args:
        base: a run folder, or a git revision.
        head: the run.
        options: how to gate.
        here: where the command was given.
        say: takes lines for standard output.

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
    with _opened(base, head, here) as source:
        try:
            source.extend(head.fit_seeds)
        except NoBaseError as error:
            code = head.run(head.fit_seeds)
            return first_run_report(read_side(head.out), options, str(error)), code
        code = head.run(head.fit_seeds)
        more = max(2 * head.fit_seeds, MIN_FITS)
        if source.can_have(more):
            options = replace(options, alpha=ALPHA_OF_TWO_LOOKS)
        report = gate_folders(source.folder, head.out, options)
        if report.of(Verdict.INCONCLUSIVE) and source.can_have(more):
            source.extend(more)
            code = head.run(more)
            note = f"Extended once, from {head.fit_seeds} to {more} fits."
            report = gate_folders(source.folder, head.out, options, [note])
        return report, code


@dataclass(frozen=True)
class _Source:
    """Where the base's records are.

    Attributes:
        folder: of its run.
        can_have: whether it has so many fits, or can be given them.
        extend: gives it so many.
    """

    folder: Path
    can_have: Callable[[int], bool]
    extend: Callable[[int], None]


@contextmanager
def _opened(base: str, head: HeadRun, here: Path) -> Iterator[_Source]:
    folder = here / base
    if folder.is_dir():
        fits = 1 + max((r.fit_seed for r in RecordStore(folder) if not r.control), default=0)
        yield _Source(folder, lambda wanted: wanted <= fits, lambda wanted: None)
        return
    with base_revision(base, here) as revision:
        out = head.out.with_name(f"{head.out.name}-base-{revision.commit[:12]}").absolute()

        def extend(fits: int) -> None:
            own = ["--out", str(out), "--fit-seeds", str(fits)]
            revision.run([*without_own(head.arguments), *own], head.path_options)
            _check_commit(revision, out)

        yield _Source(out, lambda wanted: True, extend)


def without_own(arguments: Sequence[str]) -> list[str]:
    """A command line without the options that are this command's alone."""
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
            mend="remove the folder",
        )
