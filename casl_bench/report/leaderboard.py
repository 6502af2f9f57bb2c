"""What may be ranked together, and its rows: what markdown, LaTeX, CSV and JSON all show.

Ranks rest on paired tests of per-image scores, which a run makes and keeps as its comparison.
Records of two files therefore never share a board, however alike their settings are. A number over
concepts is there only where every concept has its own: a mean over fewer is another quantity, and
would let a method gain by failing where it is bad.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from casl_bench.analysis.analyse import analyse
from casl_bench.analysis.controls import check_bounds
from casl_bench.analysis.significance import without
from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_file, hash_json
from casl_bench.core.text import visible
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.report.columns import (
    BOARD,
    EPR_PLUS,
    EPR_RAW,
    HEADLINE,
    LETTERS,
    PRECISE_EDITS,
    RANK,
    REACHED,
    SUPERVISION,
    Column,
    Placed,
    flag,
    in_order,
    of_row,
    over,
)
from casl_bench.report.grouping import Group, Number, Row, parts_of
from casl_bench.report.markdown import Markdown, escape, number, one_line
from casl_bench.results.published_scores import ENDING
from casl_bench.results.record import SCHEMA_VERSION, Comparison, RunRecord
from casl_bench.results.rejudged import FILE, LOST, NOT_REJUDGED, Rejudged, read_rejudged
from casl_bench.results.run_folder import jsonl_files, jsonl_stem, read_jsonl

RESERVED = frozenset({"README"})
"""Record files have a page of their name, and these are taken."""


@dataclass(frozen=True)
class Source:
    """One committed file of records or scores; `name` is the file's without its ending.

    Attributes:
        records: of published scores, those of its own methods and of all that were added to it.
        rejudged: what fresh scorers left of its methods, where that is known.
    """

    name: str
    file: str
    sha256: str
    records: tuple[RunRecord, ...]
    rejudged: tuple[Rejudged, ...] = ()

    @property
    def has_scores(self) -> bool:
        """Whether every number can be computed again from it."""
        return self.file.endswith(ENDING)

    def fresh(self, method: str, dataset: str | None = None) -> float | None:
        """Headline by fresh scorers, of one data set or of all; None where it is not known."""
        return next((v for r in self.rejudged if (v := r.fresh(method, dataset)) is not None), None)

    def rejudging_flag(self, method: str, dataset: str | None = None) -> str | None:
        """Why a method's rank does not stand, or was not tested; None where it stands."""
        found = (r for r in self.rejudged if r.loss(method, dataset) is not None)
        return next((r.flag(method, dataset) for r in found), NOT_REJUDGED)


@dataclass(frozen=True)
class LeaderboardTable:
    """What is ranked together.

    Attributes:
        source: the file that it is of.
        group: its records; `group.across` where they are of several data sets.
        parts: the groups of the single data sets; `group` alone where it is of one.
        mixed: what the records of a data set should share and do not, such as "scorers"; then
            nothing is ranked.
    """

    source: Source
    group: Group
    parts: tuple[Group, ...]
    mixed: tuple[str, ...]

    @property
    def first(self) -> RunRecord:
        """A record that has the domain, suite and seed of all."""
        return self.parts[0].first

    @property
    def title(self) -> str:
        """Data set, or "Overall"."""
        return "Overall" if self.group.across else self.first.dataset

    @property
    def dataset(self) -> str | None:
        """Its one data set; None where it is over several."""
        return None if self.group.across else self.first.dataset

    @property
    def suite(self) -> str:
        """Name and version."""
        return f"{self.first.suite.name} v{self.first.suite.version}"

    @cached_property
    def comparison(self) -> Comparison | None:
        """The comparison of the methods; None where there is none, or records are mixed.

        Without those that lose too much to fresh scorers and, where others stand before them, those
        that they were not shown.
        """
        found = None if self.mixed else self.group.comparison
        if found is None or found.headline is None:
            return found
        flags = {
            s.method: self.source.rejudging_flag(s.method, self.dataset) for s in found.standings
        }
        unranked = {LOST, NOT_REJUDGED} if None in flags.values() else {LOST}
        out = {name for name, flag in flags.items() if flag in unranked}
        return without(found, out) if out else found

    @property
    def by_headline(self) -> bool:
        """Whether precise edits rank it, as they do all but older records."""
        return self.comparison is not None and self.comparison.headline is not None


def read_sources(folder: Path) -> list[Source]:
    """All record files of a folder, in order of name; of `ARCHIVE` those of the old instrument.

    Raises:
        UsageError: if one has a reserved name, two share one, or one is of the other instrument.
        InvalidBenchmarkError: if any is not whole, was changed, or has a control out of its bounds.
    """
    paths = [*jsonl_files(folder), *published_files(folder)]
    sources: list[Source] = []
    for path in paths:
        name = name_of(path)
        if name in RESERVED:
            raise UsageError(f"'{name}' is reserved", where=str(path), hint="rename the file")
        if any(name == s.name for s in sources):
            raise UsageError(
                f"two files are called '{name}'", where=str(path), hint="remove one of them"
            )
        added = added_files(path) if path.name.endswith(ENDING) else []
        records = tuple(analyse([path, *added]) if added or path.name.endswith(ENDING)
                        else read_jsonl(path))  # fmt: skip
        if not records:
            raise UsageError("no records", where=str(path), hint="remove the file")
        if any(r.suite.quick for r in records):
            raise UsageError(
                "records of a suite for trying out, whose numbers mean nothing",
                where=str(path),
                hint="remove the file",
            )
        if is_old(records) != (folder.name == ARCHIVE):
            which, place = ("old", ARCHIVE) if is_old(records) else ("new", RECORDS)
            raise UsageError(
                f"records of the {which} instrument", where=str(path),
                hint=f"move the file to {folder.parent / place}",
            )  # fmt: skip
        check_bounds(records, path)
        found = [read_rejudged(rejudged_file(p)) for p in (path, *added)]
        rejudged = tuple(r for r in found if r is not None)
        sources.append(Source(name, path.name, hash_file(path), records, rejudged))
    return sources


def is_old(records: Iterable[RunRecord]) -> bool:
    """Whether any of them is of the instrument before precise edits: of schema 1 or 2."""
    return any(r.schema_version < SCHEMA_VERSION for r in records)


def name_of(path: Path) -> str:
    """A record file's name without its ending."""
    return jsonl_stem(path).removesuffix(ENDING)


OF_METHOD = "@"
"""Between the name of published scores and the methods that a further file adds to them."""


def published_files(folder: Path) -> list[Path]:
    """Files of published scores, in order of name, without those that add methods to one."""
    return sorted(p for p in folder.glob(f"*{ENDING}") if OF_METHOD not in p.name)


def added_files(published: Path) -> list[Path]:
    """Files that add methods to a file of published scores."""
    stem = published.name.removesuffix(ENDING)
    return sorted(published.parent.glob(f"{stem}{OF_METHOD}*{ENDING}"))


def rejudged_file(scores: Path) -> Path:
    """Where the re-judging of published scores lies."""
    return scores.with_name(f"{scores.name.removesuffix(ENDING)}.{FILE}")


def boards_of(source: Source) -> list[LeaderboardTable]:
    """The boards of a file: over all data sets of a domain, suite and seed first, then of each."""
    boards = []
    for part in parts_of(source.records):
        if part.overall is not None:
            mixed = tuple(dict.fromkeys(what for g in part.groups for what in g.mixed))
            boards.append(LeaderboardTable(source, part.overall, part.groups, mixed))
        boards += [LeaderboardTable(source, g, (g,), g.mixed) for g in part.groups]
    return boards


# Where pages lie and how they link to each other.

MARKER = "<!-- Made by `casl-bench leaderboard` of the records: edit those, not this. -->"
"""First line of every page that is not a run's full table."""

INDEX = "README.md"
DATASETS, METHODS, RECORDS, ARCHIVE = "datasets", "methods", "records", "archive"


def page_of(folder: str, name: str) -> str:
    """Path of the page of a data set or method, relative to the leaderboards' folder.

    A name that may not be a file name as it is gets a hash, so that distinct names stay distinct.
    """
    if re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", name):
        return f"{folder}/{name}.md"
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    return f"{folder}/{plain}-{hash_json(name)[:8]}.md"


def link(text: str, path: str, up: str = "") -> Markdown:
    """A markdown link to a path relative to the leaderboards' folder.

    `up` is "" on pages of that folder, "../" on those below it.
    """
    return Markdown(f"[{escape(text)}]({up}{quote(path, safe='/+')})")


def code(text: str) -> Markdown:
    """Text in a span of code that it cannot break out of."""
    text = visible(one_line(text))
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return Markdown(f"{ticks}{space}{text}{space}{ticks}")


# One row of a board as numbers.

Status = Literal["ranked", "unranked", "incomplete", "control"]


@dataclass(frozen=True)
class Entry(Placed):
    """One method on one board, with finished and expected cells of all fits.

    It is "unranked" where nothing was compared, and "incomplete" where cells are missing.
    """

    board: LeaderboardTable
    status: Status
    done: int
    expected: int

    @property
    def method(self) -> str:
        """Its name."""
        return self.row.key.method

    @property
    def records(self) -> list[RunRecord]:
        """Its cells, of all its fits or repetitions."""
        return _records(self.board, self.row)

    @property
    def flags(self) -> dict[str, int]:
        """Flag → number of cells that have it."""
        counts: Counter[str] = Counter()
        for record in self.row.done.values():
            counts.update(map(flag, record.flags))
            if record.provenance.git_dirty is not False:
                counts[NOT_CLEAN] += 1
        return {name: counts[name] for name in in_order(counts, _LETTERS)}

    @property
    def epr_plus(self) -> Number:
        """The headline; of a control without an interval."""
        if self.standing is not None:
            return Number.of(self.standing.epr_plus)
        if self.status == "control":
            return _of_control(self.row)
        if self.status == "incomplete":
            missing = self.row.group.listed(set(self.row.group.concepts) - set(self.row.done))
            return Number(reason=f"some cells are missing{f': {missing}' if missing else ''}")
        if self.board.mixed:
            return Number(reason=f"records differ in {', '.join(self.board.mixed)}: not comparable")
        return Number(reason="these records hold no comparison at equal effect")


def entries_of(board: LeaderboardTable) -> list[Entry]:
    """All rows: ranked ones best first, then by name the others, then the controls.

    Of several random directions the first is shown; controls matched to a method are in the run's
    own tables.
    """
    standings = board.comparison.standings if board.comparison is not None else ()
    place = {standing.method: i for i, standing in enumerate(standings)}
    fits = 1 + max((r.fit_seed for r in board.group.of_kind("edit") if not r.control), default=0)
    found = [_entry(board, row, fits) for row in board.group.rows if row.key.is_first_of_its_kind]
    last: dict[Status, int] = {"ranked": 0, "unranked": 1, "incomplete": 1, "control": 2}
    return sorted(found, key=lambda e: (last[e.status], place.get(e.method, 0), e.method))


def _entry(board: LeaderboardTable, row: Row, fits: int) -> Entry:
    records = _records(board, row)
    again = 1 + max(r.fit_seed for r in records) if row.key.control else fits
    skipped = sum(r.status == "skipped" for r in records)
    done = sum(r.status == "done" for r in records)
    expected = len(board.group.concepts) * again - skipped
    complete = not row.key.control and done >= expected
    standings = board.comparison.standings if complete and board.comparison is not None else ()
    standing = next((s for s in standings if s.method == row.key.method), None)
    status: Status = "control" if row.key.control else "incomplete"
    if complete:
        status = "unranked" if standing is None else "ranked"
    return Entry(row, standing, board, status, done, expected)


def _records(board: LeaderboardTable, row: Row) -> list[RunRecord]:
    return [
        r
        for r in board.group.of_kind("edit")
        if (r.method, r.control, r.beside) == (row.key.method, row.key.control, None)
    ]


def _of_control(row: Row) -> Number:
    """A control's EPR+ as comparisons average it; none of what EPR+ is divided by."""
    found = [n.value for n in row.each(EPR_PLUS.of).values()]
    logs = [signed_log(value) for value in found if value is not None]
    complete = logs and len(logs) == len(found)
    return Number(signed_exp(sum(logs) / len(logs))) if complete else Number()


def headline_columns() -> list[Column[Entry]]:
    """Of a board that precise edits rank, behind the name of the method: what fits a screen."""
    return [
        of_row(SUPERVISION),
        Column("precise_edits", HEADLINE.label, _headline, 3, "higher"),
        Column(
            "fresh",
            "fresh scorers",
            _fresh,
            3,
            "higher",
            note="the same images, scored by classifiers and a regressor trained for that alone",
        ),
        *(_quiet(of_row(over(c, interval=False))) for c in (EPR_RAW, EPR_PLUS)),
        *(_quiet(of_row(c)) for c in BOARD if c.name in _LEADING),
    ]


_LEADING = ("probe", "reconstruction", "edit_seconds")


def _headline(entry: Entry) -> Number:
    if entry.standing is not None:
        return Number.of(entry.standing.headline)
    found = over(PRECISE_EDITS, interval=False).of(entry.row)
    return Number(found.value) if isinstance(found, Number) else Number()


def _fresh(entry: Entry) -> Number | str:
    source, dataset = entry.board.source, entry.board.dataset
    if entry.status == "control":
        return Number()
    flag = source.rejudging_flag(entry.method, dataset)
    value = source.fresh(entry.method, dataset)
    if flag is not None:
        return flag if value is None else f"{number(value, 3)}, {flag}"
    return Number(value)


def _quiet(column: Column[Placed]) -> Column[Placed]:
    """The column without reasons: a board has few footnotes, the run's own tables have them all."""

    def of(placed: Placed) -> Number | str:
        found = column.of(placed)
        return replace(found, reason="") if isinstance(found, Number) else found

    return replace(column, of=of)


def board_columns(up: str | None = "", by_headline: bool = False) -> list[Column[Entry]]:
    """Of a board, in order, ranked by precise edits or by EPR+.

    For `up` see `link`; None where methods have no page.
    """

    def name(entry: Entry) -> Markdown:
        if entry.status == "control":
            return Markdown(f"*{escape(entry.method)}*")
        if up is None:
            return escape(entry.method)
        return link(entry.method, page_of(METHODS, entry.method), up)

    rank, *others = method_columns()
    method = Column("method", "method", name, text=True)
    return [rank, method, *(headline_columns() if by_headline else others)]


def method_columns() -> list[Column[Entry]]:
    """Of one method on several boards, behind the name of the board."""
    return [
        RANK,
        LETTERS,
        of_row(SUPERVISION),
        Column("epr_plus", EPR_PLUS.label, lambda entry: entry.epr_plus, 2, EPR_PLUS.better),
        REACHED,
        *map(of_row, BOARD),
        Column("cells", "cells", lambda entry: f"{entry.done}/{entry.expected}"),
        Column("flags", "flags", _flags),
    ]


# What a reader should know of a row, one letter per fault, with a legend.

NOT_CLEAN = "code not clean"
"""Made by a checkout with changes, or by one of which that is not known."""

_LETTERS = {
    "not reached": ("N", "no strength of the grid has the headline's effect"),
    "still rising": ("R", "no strength tried has the headline's effect, and the response rises"),
    "wrong way": ("W", "most images, or the effect as a whole, went against what was asked"),
    "non-monotone": ("M", "more strength gave less effect before the largest goal was reached"),
    "off the goal": ("O", "the effect on test images is under two thirds or over one and a half of "
                     "the one asked for"),
    "one classifier only": ("C", "another classifier sees less than half of the target's change"),
    "perceptual drift": ("P", "on average the edit moved more than half of the way to an unrelated "
                         "image"),
    "identity drift": ("I", "on average the edit's likeness to the subject fell more than half "
                       "of the way to another subject's"),
    "guided by a scorer": ("G", "optimised against a scorer, and scored by another"),
    "pretrained weights": ("T", "fitted elsewhere and loaded"),
    "EPR undefined": ("U", "the other attributes moved by less than the noise floor: no EPR raw"),
    NOT_CLEAN: ("D", "made by code that is not a clean commit"),
}  # fmt: skip


def _flags(entry: Entry) -> str:
    """As a cell shows them: `N 2, C 1`; a flag without a letter by its name."""
    return ", ".join(
        f"{_LETTERS[name][0] if name in _LETTERS else name} {count}"
        for name, count in entry.flags.items()
    )


def legend(entries: Iterable[Entry]) -> str:
    """The flags that any row has; empty where there is none."""
    parts = []
    for name in in_order((n for entry in entries for n in entry.flags), _LETTERS):
        letter, what = _LETTERS.get(name, ("", ""))
        parts.append(f"**{letter}** {escape(name)}: {what}" if letter else f"**{escape(name)}**")
    return f"Flags, each with its number of cells: {'; '.join(parts)}." if parts else ""
