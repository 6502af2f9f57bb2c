"""Accepted runs, one after the other: what single gates cannot see adds up here.

A change that loses 3 % passes, and so do the next three. The history has one line an accepted run;
steps are found in it, and the change since the first run is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import write_text
from casl_bench.gate.log_ratio import to_scale
from casl_bench.gate.verdict import EXIT_PASSED, GateReport, SideInfo
from casl_bench.results.record import Finite, Frozen
from casl_bench.results.score_table import Array

MIN_RUNS = 4
"""Fewer accepted runs show no step: two on each side of it are needed."""


class HistoryLine(Frozen):
    """One accepted run.

    Attributes:
        commit: of its code.
        suite: name and version.
        precision: "data set/method" → EPR+ back from the mean on the gate's scale.
    """

    commit: str | None
    suite: str
    precision: dict[str, Finite]


@dataclass(frozen=True)
class Trend:
    """One (data set, method) over the accepted runs of one suite.

    Attributes:
        name: "data set/method".
        commits: of the runs.
        precision: [n] EPR+.
        steps: places at which another level begins.
        drift: log ratio of the last level over the first.
    """

    name: str
    commits: tuple[str, ...]
    precision: Array
    steps: tuple[int, ...]
    drift: float


def read_history(path: Path) -> list[HistoryLine]:
    """All accepted runs, oldest first; none where there is no file.

    Raises:
        InvalidBenchmarkError: on a line that is none, or a file that is no text.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidBenchmarkError("the history cannot be read", where=str(path)) from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(HistoryLine.model_validate_json(line))
        except ValidationError as error:
            where = f"{path}:{number}"
            raise InvalidBenchmarkError("not a line of the history", where=where) from error
    return lines


def accept(path: Path, report: GateReport) -> HistoryLine:
    """Append a run that passed.

    Args:
        path: of the history; made where there is none.
        report: of the run.

    Raises:
        UsageError: if the run did not pass, has uncommitted changes, or is the last one already.
    """
    head = report.head
    if report.exit_code != EXIT_PASSED or head is None:
        raise UsageError("only a run that passed can be accepted", where=report.headline)
    line = _line(report, head)
    lines = read_history(path)
    if lines and lines[-1] == line:
        raise UsageError("this run is the last line already", where=str(path))
    text = [json.dumps(x.model_dump(mode="json"), sort_keys=True) for x in (*lines, line)]
    write_text(path, "".join(f"{x}\n" for x in text))
    return line


def _line(report: GateReport, head: SideInfo) -> HistoryLine:
    if head.dirty:
        raise UsageError("the run's code had uncommitted changes", where=head.where,
                         mend="commit and run again: nobody could make it anew")  # fmt: skip
    found = {f"{c.dataset}/{c.method}": c.head for c in report.cells}
    precision = {name: value for name, value in sorted(found.items()) if value is not None}
    return HistoryLine(commit=head.commit, suite=head.suite, precision=precision)


def trends(lines: Sequence[HistoryLine]) -> list[Trend]:
    """Every (data set, method) of the last line's suite, with the steps in its precision."""
    if not lines:
        return []
    own = [line for line in lines if line.suite == lines[-1].suite]
    found = []
    for name in sorted({name for line in own for name in line.precision}):
        runs = [line for line in own if name in line.precision]
        precision = np.array([line.precision[name] for line in runs])
        scores = to_scale(precision)
        steps = find_steps(scores)
        edges = (0, *steps, len(scores))
        first, last = scores[edges[0] : edges[1]].mean(), scores[edges[-2] : edges[-1]].mean()
        commits = tuple((line.commit or "unknown")[:12] for line in runs)
        found.append(Trend(name, commits, precision, steps, float(last - first)))
    return found


def find_steps(values: Array) -> tuple[int, ...]:
    """Places at which another level begins, by the optimal partition into constant pieces.

    The penalty of a step is 3 s² log n, s being the spread of a single run as the differences of
    neighbours show it: robust against the steps themselves.

    Args:
        values: [n] one a run, in order.

    Returns:
        Increasing places in (0, n); none with fewer than `MIN_RUNS` runs or where nothing varies.
    Source: Killick, Fearnhead & Eckley 2012 (PELT), as in `ruptures`.
    """
    if len(values) < MIN_RUNS:
        return ()
    spread = float(np.median(np.abs(np.diff(values)))) / (0.6745 * np.sqrt(2))
    floor = 1e-3  # a log ratio: where neighbours are equal, a tenth of a per cent is noise
    penalty = 3 * max(spread, floor) ** 2 * np.log(len(values))
    import ruptures  # here: it takes longer to load than all of the gate

    places = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(values).predict(pen=penalty)
    return tuple(int(p) for p in places[:-1])
