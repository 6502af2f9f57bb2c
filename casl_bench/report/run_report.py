"""What a finished run leaves for people: tables, pictures, and a summary that fits a screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from casl_bench.analysis.analyse import NUMBERS_FILE
from casl_bench.core.files import write_text
from casl_bench.core.text import visible
from casl_bench.report.columns import Column, Placed, standing_columns
from casl_bench.report.grouping import Group, Part, Row, RowKey, parts_of
from casl_bench.report.markdown import Footnotes
from casl_bench.report.pictures import write_pictures
from casl_bench.report.tables import TRIAL, effect_in_words, render_tables, zero_shot_sentence
from casl_bench.results.record import Comparison, RunRecord
from casl_bench.results.run_folder import SUMMARY_FILE, RecordStore, read_jsonl

TABLE = "table.md"

MOST_LINES = 25
_MOST_ROWS = 10
_MOST_NAMED = 3
_SHOWN = ("rank", "method", "supervision", "precise_edits", "epr_plus", "reached")
"""Columns of the standings that a terminal shows."""


def write_run_report(run: Path) -> str:
    """Write tables, summary and pictures of an analysed run folder; returns the summary.

    Empty, and nothing is written, where there is no number.
    """
    path = run / NUMBERS_FILE
    numbers = read_jsonl(path) if path.is_file() else []
    if not numbers:
        return ""
    summary = write_tables(run, numbers)
    write_pictures(RecordStore(run), numbers)
    return summary


def remove_tables(run: Path) -> None:
    """Remove tables and summary, which a smaller run of the folder may have left."""
    for name in (TABLE, SUMMARY_FILE):
        (run / name).unlink(missing_ok=True)


def write_tables(run: Path, numbers: Sequence[RunRecord]) -> str:
    """Write all tables and the summary into a folder; returns the summary."""
    summary = summary_text(numbers, run)
    write_text(run / TABLE, render_tables(numbers))
    write_text(run / SUMMARY_FILE, summary)
    return summary


def summary_text(records: Sequence[RunRecord], run: Path | None = None) -> str:
    """Who is first, in at most `MOST_LINES` lines, and where in a run folder the rest lies.

    A run for trying out says what was done and what failed, and no number.
    """
    lines: list[str] = []
    parts = parts_of(records)
    for part in parts:
        lines += _of_part(part)
    if failed := [r for r in records if r.status == "failed" and r.error is not None]:
        first = failed[0]
        place = "/".join(filter(None, (first.dataset, first.method, first.concept)))
        lines.append(f"{len(failed)} cells failed, the first {place}: {first.error.message}"[:160])  # type: ignore[union-attr]
    lines = [visible(line) for line in lines]
    if run is None:
        return "\n".join(lines[:MOST_LINES]).rstrip() + "\n"
    quick = all(part.groups[0].is_trial for part in parts)
    names = [TABLE, "pictures/"] if quick else [f"{TABLE} (all tables)", "pictures/ (edits)"]
    where = [
        f"more in {run}: {', '.join(names)}",
        f"in a browser: casl-bench report {run}",
    ]
    return "\n".join([*lines[: MOST_LINES - len(where)], *where]) + "\n"


def _of_part(part: Part) -> list[str]:
    groups = [part.overall] if part.overall is not None else [*part.groups]
    lines: list[str] = []
    for group in groups:
        first = group.first
        names = [g.first.dataset for g in part.groups]
        where = ", ".join(names) if group.across else first.dataset
        head = f"{where} ({first.domain_title}, suite {first.suite.name}, seed {first.seed})"
        lines += [head, *filter(None, [zero_shot_sentence(part.groups)])]
        lines += [*(_tried(group) if group.is_trial else _standings(group)), ""]
    return lines


def _tried(group: Group) -> list[str]:
    """How far a run for trying out came."""
    found = [
        (key.name, sum(r.status == "done" for r in cells.values()), len(cells))
        for key, cells in group.edits.items()
        if not key.control
    ]
    found.sort(key=lambda row: row[1] == row[2])  # what is not done is seen first
    lines = [TRIAL, *(f"  {n}: {done} of {_count(of)} done" for n, done, of in found[:_MOST_ROWS])]
    if more := found[_MOST_ROWS:]:
        whole = sum(done == of for _, done, of in more)
        lines.append(f"  and {len(more)} more, {whole} of them done")
    controls = {key.method.split(" #")[0] for key in group.edits if key.control}
    if controls:
        lines.append(f"  {len(controls)} controls were run")
    return lines


def as_text(column: Column[Placed], item: Placed, notes: Footnotes) -> str:
    """A cell for what is no markdown: a method's name as it is."""
    named = column.name == "method"
    return item.row.key.method if named else str(column.cell(item, notes))


def _count(concepts: int) -> str:
    return f"{concepts} concept{'' if concepts == 1 else 's'}"


def who_is_first(found: Comparison) -> str:
    """The methods that the comparison leaves first, in words."""
    best = [s.method for s in found.standings if s.rank_low == 1]
    if len(best) == 1:
        return f"{best[0]} is first"
    named = best if len(best) <= _MOST_NAMED else [*best[:2], f"{len(best) - 2} others"]
    return f"{', '.join(named[:-1])} or {named[-1]} may be first (no significant difference)"


def _standings(group: Group) -> list[str]:
    found = group.comparison
    if found is None or not found.standings:
        return ["no comparison: cells are missing, or no test image lacks what is asked for"]
    columns = [c for c in standing_columns(found) if c.name in _SHOWN]
    notes = Footnotes()
    placed = [Placed(Row(group, RowKey(False, s.method)), s) for s in found.standings]
    rows = [[as_text(column, item, notes) for column in columns] for item in placed[:_MOST_ROWS]]
    align = ["left" if column.text else "right" for column in columns]
    heads = [column.header for column in columns]
    body = tabulate(rows, heads, "simple", disable_numparse=True, colalign=align)
    images = found.standings[0].epr_plus.n
    level = effect_in_words(found.level)
    about = f"{_count(len(found.concepts))}, n = {images} images; EPR+ at {level}"
    more = len(placed) - _MOST_ROWS
    left = [f"and {more} more methods"] if more > 0 else []
    if found.incomplete:
        left.append(f"not compared, some cells are missing: {', '.join(found.incomplete)}")
    brackets = "in brackets: 95 % intervals for other images and other concepts like these"
    under = [brackets] if "[" in body else []
    return [who_is_first(found), about, "", *body.splitlines(), *under, *left]
