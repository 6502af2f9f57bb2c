"""What may be ranked together: the records of one run on one data set, or on several at once.

Ranks rest on paired tests of per-image scores, which a run makes and keeps as its comparison.
Records of two files therefore never share a board, however alike their settings are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from casl_bench.analysis.controls import check_bounds
from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_file, hash_json
from casl_bench.report.grouping import Group, parts_of
from casl_bench.report.markdown import escape, one_line
from casl_bench.results.record import Comparison, RunRecord, Standing
from casl_bench.results.run_folder import jsonl_files, jsonl_stem, read_jsonl

RESERVED = frozenset({"README"})
"""Record files have a page of their name, and these are taken."""


@dataclass(frozen=True)
class Source:
    """One committed file of records.

    Attributes:
        name: of the file, without its ending.
        file: its name with it.
        sha256: of its bytes.
        records: in the file's order.
    """

    name: str
    file: str
    sha256: str
    records: tuple[RunRecord, ...]


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
    def suite(self) -> str:
        """Name and version."""
        return f"{self.first.suite.name} v{self.first.suite.version}"

    @property
    def comparison(self) -> Comparison | None:
        """The comparison of the methods; None where there is none, or records are mixed."""
        return None if self.mixed else self.group.comparison

    def standing(self, method: str) -> Standing | None:
        """A method's place; None where it has none."""
        standings = self.comparison.standings if self.comparison is not None else ()
        return next((s for s in standings if s.method == method), None)

    @property
    def fits(self) -> int:
        """Fits of every method on every concept."""
        own = [r.fit_seed for r in self.group.of_kind("edit") if not r.control]
        return 1 + max(own, default=0)


def read_sources(folder: Path) -> list[Source]:
    """All record files of a folder, in order of name.

    Raises:
        UsageError: if there is none, one has a reserved name, or two share one.
        InvalidBenchmarkError: if any is not whole, was changed, or has a control out of its bounds.
    """
    paths = jsonl_files(folder)
    if not paths:
        raise UsageError(
            "no record files", where=str(folder), hint="add one with casl-bench submit RUN"
        )
    sources: list[Source] = []
    for path in paths:
        name = jsonl_stem(path)
        if name in RESERVED:
            raise UsageError(f"'{name}' is reserved", where=str(path), hint="rename the file")
        if any(name == s.name for s in sources):
            raise UsageError(
                f"two files are called '{name}'", where=str(path), hint="remove one of them"
            )
        records = tuple(read_jsonl(path))
        if not records:
            raise UsageError("no records", where=str(path), hint="remove the file")
        check_bounds(records, path)
        sources.append(Source(name, path.name, hash_file(path), records))
    return sources


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
DATASETS, METHODS, RECORDS = "datasets", "methods", "records"


def page_of(folder: str, name: str) -> str:
    """Path of the page of a data set or method, relative to the leaderboards' folder.

    A name that may not be a file name as it is gets a hash, so that distinct names stay distinct.
    """
    if re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", name):
        return f"{folder}/{name}.md"
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    return f"{folder}/{plain}-{hash_json(name)[:8]}.md"


def link(text: str, path: str, up: str = "") -> str:
    """A markdown link.

    Args:
        text: as shown, escaped here.
        path: relative to the leaderboards' folder.
        up: "" on pages of that folder, "../" on those below it.
    """
    return f"[{escape(text)}]({up}{path.replace(' ', '%20')})"


def code(text: str) -> str:
    """Text in a span of code that it cannot break out of."""
    text = one_line(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text}{space}{ticks}"
