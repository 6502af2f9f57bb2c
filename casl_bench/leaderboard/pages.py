"""Sources → markdown pages, and nothing but sources: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from casl_bench.leaderboard.boards import Board, Source, boards_of
from casl_bench.leaderboard.entries import Entry, entries_of
from casl_bench.leaderboard.method_page import method_page
from casl_bench.leaderboard.places import (
    DATASETS,
    INDEX,
    MARKER,
    METHODS,
    RECORDS,
    code,
    link,
    page_of,
)
from casl_bench.leaderboard.tables import board_table, folded, published_epr
from casl_bench.reports.comparison_tables import comparison_section
from casl_bench.reports.cost_tables import cost_section
from casl_bench.reports.markdown import DASH, escape, table
from casl_bench.reports.table import render_tables
from casl_bench.reports.titles import group_title, overall_title

_ABOUT = (
    "Made by `casl-bench leaderboard` of the record files in [records](records); "
    "`casl-bench leaderboard --check` says whether it still is what they say. How to read it, how "
    "to add results of your own, and how they are checked: "
    "[docs/leaderboards.md](../docs/leaderboards.md). LaTeX, CSV and JSON: "
    "`casl-bench leaderboard --format latex`."
)
_APART = (
    "{n} boards stand here apart. Ranks are those of one run, whose methods edit the same images; "
    "numbers of two boards may be set beside each other only where all that their titles say is "
    "the same."
)


def render_pages(sources: Sequence[Source]) -> dict[str, str]:
    """Every page: path relative to the leaderboards' folder → its text.

    Args:
        sources: record files, in any order.
    """
    sources = sorted(sources, key=lambda s: s.name)
    boards = [board for source in sources for board in boards_of(source)]
    pages = {INDEX: _index(sources, boards)}
    for name, own in _by_dataset(boards).items():
        pages[page_of(DATASETS, name)] = _dataset_page(name, own)
    for name, entries in _by_method(boards).items():
        pages[page_of(METHODS, name)] = method_page(name, entries)
    for source in sources:
        pages[f"{source.name}.md"] = render_tables(source.records)
    return pages


def _by_dataset(boards: Iterable[Board]) -> dict[str, list[Board]]:
    """Data set → its boards, in order of name."""
    found: dict[str, list[Board]] = {}
    for board in boards:
        if not board.group.across:
            found.setdefault(board.first.dataset, []).append(board)
    return dict(sorted(found.items()))


def _by_method(boards: Iterable[Board]) -> dict[str, list[Entry]]:
    """Entrant → its rows, in order of name; controls have no page."""
    found: dict[str, list[Entry]] = {}
    for board in boards:
        for entry in entries_of(board):
            if entry.status != "control":
                found.setdefault(entry.method, []).append(entry)
    return dict(sorted(found.items()))


def _index(sources: Sequence[Source], boards: Sequence[Board]) -> str:
    parts = [MARKER, "# Leaderboards", _ABOUT]
    leading = [b for b in boards if b.group.across or _alone(b, boards)]
    if len(leading) > 1:
        parts.append(_APART.format(n=len(leading)))
    for board in leading:
        parts += [board_title(board), _made_by(board, ""), board_table(board)]
        parts.append(published_epr(board))
    methods = ", ".join(link(m, page_of(METHODS, m)) for m in _by_method(boards))
    parts += ["## Data sets", _datasets_table(boards)]
    if methods:
        parts += ["## Methods", methods]
    parts += ["## Records", _sources_table(sources)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _alone(board: Board, boards: Sequence[Board]) -> bool:
    """Whether no board over several data sets holds this one."""
    groups = [id(g) for b in boards if b.group.across for g in b.parts]
    return id(board.group) not in groups


def _dataset_page(name: str, boards: Sequence[Board]) -> str:
    parts = [MARKER, f"# {escape(name)}"]
    if len(boards) > 1:
        parts.append(_APART.format(n=len(boards)))
    for board in boards:
        group = board.group
        tests = comparison_section(group, _TESTS) if board.comparison is not None else ""
        parts += [
            board_title(board),
            _made_by(board, "../"),
            board_table(board, "../"),
            published_epr(board),
            folded(_TESTS, tests),
            folded("Cost", cost_section(group)),
        ]
    parts.append(link("All leaderboards", INDEX, "../"))
    return "\n\n".join(part for part in parts if part) + "\n"


def board_title(board: Board) -> str:
    """Heading and what was measured by what, as above the run's own tables."""
    return overall_title(board.parts) if board.group.across else group_title(board.group)


def _made_by(board: Board, up: str) -> str:
    """Where the numbers are from: records, their tables, command, commit."""
    name, file = board.source.name, board.source.file
    records = board.group.records
    argv = sorted({" ".join(r.provenance.argv) for r in records} - {""})
    commits = sorted({(r.provenance.git_commit or "unknown")[:12] for r in records})
    shown = [code(a) for a in argv[:_COMMANDS]]
    more = f" and {len(argv) - _COMMANDS} more" if len(argv) > _COMMANDS else ""
    return (
        f"Records: {link(file, f'{RECORDS}/{file}', up)}; all tables: "
        f"{link(name, f'{name}.md', up)}; command: {'; '.join(shown) or 'unknown'}{more}; "
        f"code: {', '.join(map(code, commits))}."
    )


def _datasets_table(boards: Sequence[Board]) -> str:
    rows = []
    for name, own in _by_dataset(boards).items():
        for board in own:
            first = board.first
            rows.append(
                [
                    link(name, page_of(DATASETS, name)),
                    escape(first.world),
                    escape(f"{first.suite.name} v{first.suite.version}"),
                    str(first.seed),
                    escape(board.source.name),
                    _leaders(board),
                    str(len(board.group.concepts)),
                ]
            )
    headings = ["data set", "world", "suite", "seed", "records", "may be first", "concepts"]
    return table(headings, rows, text_columns=6)


def _leaders(board: Board) -> str:
    """Every method whose rank interval holds 1."""
    comparison = board.comparison
    if comparison is None:
        return DASH
    ranked = [e.method for e in entries_of(board) if e.standing and e.standing.rank_low == 1]
    return ", ".join(link(m, page_of(METHODS, m)) for m in ranked) or DASH


def _sources_table(sources: Sequence[Source]) -> str:
    rows = [
        [
            link(s.file, f"{RECORDS}/{s.file}"),
            link("tables", f"{s.name}.md"),
            code(s.sha256[:12]),
            f"{len(s.records):,}",
        ]
        for s in sources
    ]
    return table(["file", "all its tables", "SHA-256", "records"], rows, text_columns=3)


_TESTS = "How the ranks were made: paired tests, sensitivity, other scorers"
_COMMANDS = 3
