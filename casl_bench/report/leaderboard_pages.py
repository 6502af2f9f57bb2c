"""Sources → markdown pages, and nothing but sources: the same records give the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from casl_bench.analysis.significance import is_significant
from casl_bench.core.errors import InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.core.files import read_whole, write_text
from casl_bench.core.text import visible
from casl_bench.report.columns import (
    EPR_RAW,
    METHOD,
    PRECISE_EDITS,
    RANK,
    Column,
    measurement,
    over,
    pair_columns,
    probe_k,
    table_of,
)
from casl_bench.report.grouping import Group, Number, Row
from casl_bench.report.leaderboard import (
    ARCHIVE,
    DATASETS,
    INDEX,
    MARKER,
    METHODS,
    RECORDS,
    Entry,
    LeaderboardTable,
    Source,
    board_columns,
    boards_of,
    code,
    entries_of,
    headline_columns,
    legend,
    link,
    method_columns,
    page_of,
)
from casl_bench.report.markdown import DASH, Markdown, compact, escape, fold
from casl_bench.report.tables import (
    comparison_section,
    concept_section,
    cost_section,
    group_title,
    overall_title,
)
from casl_bench.results.record import Comparison, Pair
from casl_bench.results.rejudged import MOST_LOSS

# A board as one table, with its legend.

_ABOUT_BOARD = (
    "Ranks are those that paired tests with Holm's correction leave open; methods that share a "
    "letter are not significantly different. EPR+ [95 % interval for other images and concepts "
    "like these]: target change over the mean change of the other attributes, divided by what "
    "random directions get; 1 is chance. All other numbers are means over {concepts} "
    "concepts{where}. Flip rate: share of images that the edit flips. Incomplete rows and "
    "*controls* have no rank. Reconstruction is shared by all methods{probe}. Parameters are the "
    "most of any concept, U-Net calls of a fit are those of one concept, in images; time is of the "
    "machine that ran it."
)


def about(board: LeaderboardTable) -> str:
    """What the numbers of a board are, in a few sentences."""
    where = "" if board.comparison is None else " at equal effect"
    k = probe_k(board.group)
    probe = "" if k is None else f"; probe: accuracy of a linear SVM on a method's {k} best latents"
    return _ABOUT_BOARD.format(concepts=len(board.group.concepts), where=where, probe=probe)


_ABOUT_HEADLINE = (
    "**Precise edits** [95 % interval for other images and concepts like these]: share of test "
    "images in which every classifier sees the target flip as asked and nothing else goes further "
    "than a tolerance on the way to another image, mean over tolerances and over {concepts} "
    "concepts. Ranks are those that paired tests leave open. Fresh scorers: the same pictures, "
    "re-judged; a method that loses more than {loss:.0%} is not ranked. EPR (eq. 14 of CASL) and "
    "EPR+ are at half of the perfect edit's effect{probe}; reconstruction is shared by all methods."
)


def board_table(board: LeaderboardTable, up: str | None = "") -> str:
    """The ranked table of a board with what must be known to read it; for `up` see `link`."""
    entries = entries_of(board)
    if board.by_headline:
        k = probe_k(board.group)
        probe = "" if k is None else f"; probe: linear SVM on {k} latents"
        about_it = _ABOUT_HEADLINE.format(
            concepts=len(board.group.concepts), loss=MOST_LOSS, probe=probe
        )
        columns = board_columns(up, by_headline=True)
        methods = [e for e in entries if e.status != "control"]
        controls = [e for e in entries if e.status == "control"]
        return _joined(
            about_it,
            table_of(columns, methods),
            fold("controls", table_of(columns[1:], controls)) if controls else "",
            heat_map(board),
        )
    return _joined(about(board), table_of(board_columns(up), entries), legend(entries))


_SHADES = "░▒▓█"


def heat_map(board: LeaderboardTable) -> str:
    """Concepts × methods: share of precise edits in per cent, darker where there are more."""
    entries = [e for e in entries_of(board) if e.status != "control"]

    def column(entry: Entry) -> Column[str]:
        def of(concept: str) -> str:
            record = entry.row.done.get(concept)
            found = None if record is None else Number.of(measurement(record, PRECISE_EDITS.name))
            if found is None or found.value is None:
                return DASH
            shade = _SHADES[min(int(found.value * len(_SHADES)), len(_SHADES) - 1)]
            return f"{shade} {100 * found.value:.0f}"

        return Column(entry.method, entry.method, of)

    if not entries:
        return ""
    concept = Column[str]("concept", "precise edits, %", str, text=True)
    return table_of([concept, *map(column, entries)], board.group.concepts)


_ABOUT_EPR_RAW = (
    "Mean absolute change of the target's logit over that of the other attributes, not "
    "standardised: blind to direction, and not to be compared between attributes or at other "
    "effects."
)


def published_epr(board: LeaderboardTable) -> str:
    """EPR as the paper defines it, by method and concept or data set, in a fold."""
    group = board.group

    def of_concept(concept: str) -> Column[Row]:
        def of(row: Row) -> Number | str:
            record = row.done.get(concept)
            return Number() if record is None else EPR_RAW.of(record)

        return Column(concept, concept, of)

    columns = [METHOD]
    for name in group.datasets if group.across else group.concepts:
        column = over(EPR_RAW, dataset=name) if group.across else of_concept(name)
        columns.append(replace(column, label=name, better=None))
    columns.append(replace(over(EPR_RAW), label="mean", better=None))
    rows = [row for row in group.rows if row.key.is_first_of_its_kind]
    return fold("EPR as published (EPR raw)", f"{_ABOUT_EPR_RAW}\n\n{table_of(columns, rows)}")


def folded(title: str, text: str) -> str:
    """A section of the run's own tables, closed and under another title; empty without any."""
    _heading, _, body = text.partition("\n\n")
    return fold(title, body) if body else ""


def _joined(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


# The page of one method: its places, every concept, the paired tests, its settings.


def method_page(name: str, entries: Sequence[Entry]) -> str:
    """Everything that boards say of a method; a row for each of them, never a mean over them."""
    place = Column[Entry]("board", "board", lambda entry: _place(entry.board), text=True)
    parts = [MARKER, f"# {escape(name)}", _what(entries)]
    ranked = [entry for entry in entries if entry.board.by_headline]
    older = [entry for entry in entries if not entry.board.by_headline]
    if ranked:
        parts.append(table_of([place, RANK, *headline_columns()], ranked))
    if older:
        parts += [about(older[0].board), table_of([place, *method_columns()], older), legend(older)]
    for entry in entries:
        board = entry.board
        parts.append(_against(entry))
        if not board.group.across:
            own = concept_section(Group(entry.records))
            parts.append(folded(f"Concepts of {_plain(board)}", own))
    parts += _settings(entries)
    return _joined(*parts, link("All leaderboards", INDEX, "../")) + "\n"


def _what(entries: Sequence[Entry]) -> str:
    records = [r for e in entries for r in e.records]
    versions = sorted({r.method_version for r in records if r.method_version is not None})
    guides = sorted({g for r in records for g in r.guided_by})
    supervision = sorted({e.row.supervision for e in entries})
    lines = [f"Supervision: {', '.join(map(escape, supervision))}."]
    if versions:
        lines.append(f"Version: {', '.join(map(str, versions))}.")
    if guides:
        lines.append(f"Optimised against: {', '.join(map(escape, guides))}.")
    return " ".join(lines)


def _place(board: LeaderboardTable) -> Markdown:
    """A board as the first cell of a row names it."""
    first = board.first
    where = Markdown("all data sets")
    if not board.group.across:
        where = link(first.dataset, page_of(DATASETS, first.dataset), "../")
    run = f"{first.domain_title}, {board.suite}, seed {first.seed}"
    return Markdown(f"{where} ({escape(run)}; {escape(board.source.name)})")


def _plain(board: LeaderboardTable) -> str:
    return f"{board.title} ({board.suite}, seed {board.first.seed}; {board.source.name})"


def _against(entry: Entry) -> str:
    """The paired test with every other method of a board, in a fold."""
    comparison, own = entry.board.comparison, entry.method
    if comparison is None or entry.standing is None or not comparison.pairs:
        return ""
    pairs = [pair.seen_from(own) for pair in comparison.pairs if own in (pair.a, pair.b)]
    body = table_of(_against_columns(comparison), pairs)
    return fold(f"Against the others: {_plain(entry.board)}", body) if pairs else ""


def _verdict(pair: Pair) -> str:
    if not is_significant(pair):
        return "not significantly different"
    return "better" if (pair.difference.value or 0.0) > 0 else "worse"


def _against_columns(comparison: Comparison) -> tuple[Column[Pair], ...]:
    of = {column.name: column for column in pair_columns(comparison)}
    difference = of["difference"].label.removeprefix("a − b, ")
    return (
        replace(of["b"], label="other"),
        Column("verdict", "this method is", _verdict, text=True),
        replace(of["difference"], label=f"difference, {difference}"),
        of["p_holm"],
    )


def _settings(entries: Sequence[Entry]) -> list[str]:
    """What the method was set to, once a distinct setting."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        if entry.board.group.across:
            continue
        for record in entry.records:
            text = json.dumps(record.method_config, indent=2, sort_keys=True, ensure_ascii=False)
            boards = found.setdefault(text, [])
            if _plain(entry.board) not in boards:
                boards.append(_plain(entry.board))
    return [fold(f"Settings: {'; '.join(boards)}", _block(text)) for text, boards in found.items()]


def _block(text: str) -> str:
    """Indented code: nothing within can end it."""
    return "\n".join(f"    {visible(line)}" for line in text.split("\n"))


_ABOUT_PAGES = (
    "Made by `casl-bench leaderboard` of the record files in `records`; "
    "`casl-bench leaderboard --check` reports whether it still matches them. How to read it, how "
    "to add results of your own, and how they are checked: "
    "[docs/leaderboards.md](../docs/leaderboards.md). LaTeX, CSV and JSON: "
    "`casl-bench leaderboard --format latex`."
)
_APART = (
    "{n} separate boards. Ranks are those of one run, whose methods edit the same images; numbers "
    "of two boards may be compared only where everything in their titles is the same."
)


def render_pages(sources: Sequence[Source], archived: Sequence[Source] = ()) -> dict[str, str]:
    """Every page: path relative to the leaderboards' folder → its text.

    Archived sources, those of the old instrument, have one page of their own and are on no other.
    """
    sources = sorted(sources, key=lambda s: s.name)
    boards = [board for source in sources for board in boards_of(source)]
    pages = {INDEX: _index(sources, boards, bool(archived))}
    for name, own in _by_dataset(boards).items():
        pages[page_of(DATASETS, name)] = _dataset_page(name, own)
    for name, entries in _by_method(boards).items():
        pages[page_of(METHODS, name)] = method_page(name, entries)
    if archived:
        pages[f"{ARCHIVE}/{INDEX}"] = _archive_page(sorted(archived, key=lambda s: s.name))
    return {name: compact(text) for name, text in pages.items()}


_ABOUT_ARCHIVE = (
    "**Of the old instrument.** Methods were ranked by EPR+ at half of the perfect edit's effect, "
    "a number that could be bought ([docs/studies/headline.md](../../docs/studies/headline.md)), "
    "on models, settings and suites of that time. No number here may be compared with one of the "
    "[leaderboards of today](../README.md)."
)


def _archive_page(sources: Sequence[Source]) -> str:
    parts = [MARKER, "# Archive", _ABOUT_ARCHIVE]
    for source in sources:
        for board in boards_of(source):
            parts += [board_title(board), board_table(board, None)]
        parts.append(f"All tables: {_all_tables(source, ARCHIVE)}.")
    return _joined(*parts) + "\n"


def _all_tables(source: Source, folder: str) -> Markdown:
    """The command that prints everything that is known of a file of records."""
    command = "analyse" if source.has_scores else "table"
    return code(f"casl-bench {command} leaderboards/{folder}/{source.file}")


def _by_dataset(boards: Iterable[LeaderboardTable]) -> dict[str, list[LeaderboardTable]]:
    """Data set → its boards, in order of name."""
    found: dict[str, list[LeaderboardTable]] = {}
    for board in boards:
        if not board.group.across:
            found.setdefault(board.first.dataset, []).append(board)
    return dict(sorted(found.items()))


def _by_method(boards: Iterable[LeaderboardTable]) -> dict[str, list[Entry]]:
    """Method → its rows, in order of name; controls have no page."""
    found: dict[str, list[Entry]] = {}
    for board in boards:
        for entry in entries_of(board):
            if entry.status != "control":
                found.setdefault(entry.method, []).append(entry)
    return dict(sorted(found.items()))


_NO_RUN = "No run is published yet: `casl-bench submit RUN` adds the first."
_OLD = (
    f"Results of the old instrument, ranked by EPR+, are in the [archive]({ARCHIVE}/{INDEX}) and "
    "are not to be compared with any here."
)


def _index(sources: Sequence[Source], boards: Sequence[LeaderboardTable], has_archive: bool) -> str:
    parts = [MARKER, "# Leaderboards", _ABOUT_PAGES, _OLD if has_archive else ""]
    if not sources:
        return _joined(*parts, _NO_RUN) + "\n"
    held = {id(g) for b in boards if b.group.across for g in b.parts}
    leading = [b for b in boards if b.group.across or id(b.group) not in held]
    if len(leading) > 1:
        parts.append(_APART.format(n=len(leading)))
    for board in leading:
        parts += [board_title(board), _made_by(board, ""), board_table(board)]
        if not board.by_headline:
            parts.append(published_epr(board))
    methods = ", ".join(link(m, page_of(METHODS, m)) for m in _by_method(boards))
    parts += ["## Data sets", _datasets_table(boards)]
    if methods:
        parts += ["## Methods", methods]
    parts += ["## Records", _sources_table(sources)]
    return _joined(*parts) + "\n"


def _dataset_page(name: str, boards: Sequence[LeaderboardTable]) -> str:
    parts = [MARKER, f"# {escape(name)}"]
    if len(boards) > 1:
        parts.append(_APART.format(n=len(boards)))
    for board in boards:
        group = board.group
        title = _TESTS if board.by_headline else _OLD_TESTS
        tests = comparison_section(group, title) if board.comparison is not None else ""
        parts += [
            board_title(board),
            _made_by(board, "../"),
            board_table(board, "../"),
            "" if board.by_headline else published_epr(board),
            folded(title, tests),
            "" if board.by_headline else folded("Cost", cost_section(group)),
        ]
    return _joined(*parts, link("All leaderboards", INDEX, "../")) + "\n"


def board_title(board: LeaderboardTable) -> str:
    """Heading and what was measured by what, as above the run's own tables."""
    return overall_title(board.parts) if board.group.across else group_title(board.group)


def _made_by(board: LeaderboardTable, up: str) -> str:
    """Where the numbers are from: records, their tables, command, commit."""
    file, records = board.source.file, board.group.records
    argv = sorted({" ".join(r.provenance.argv) for r in records} - {""})
    commits = sorted({(r.provenance.git_commit or "unknown")[:12] for r in records})
    shown = [code(a) for a in argv[:_COMMANDS]]
    more = f" and {len(argv) - _COMMANDS} more" if len(argv) > _COMMANDS else ""
    return (
        f"Records: {link(file, f'{RECORDS}/{file}', up)}; "
        f"all tables: {_all_tables(board.source, RECORDS)}; "
        f"command: {'; '.join(shown) or 'unknown'}{more}; "
        f"code: {', '.join(map(code, commits))}."
    )


def _datasets_table(boards: Sequence[LeaderboardTable]) -> str:
    columns: tuple[Column[LeaderboardTable], ...] = (
        Column("dataset", "data set",
               lambda b: link(b.title, page_of(DATASETS, b.title)), text=True),
        Column("domain", "domain", lambda b: b.first.domain_title, text=True),
        Column("suite", "suite", lambda b: b.suite, text=True),
        Column("seed", "seed", lambda b: str(b.first.seed), text=True),
        Column("records", "records", lambda b: b.source.name, text=True),
        Column("leaders", "may be first", _leaders, text=True),
        Column("concepts", "concepts", lambda b: str(len(b.group.concepts))),
    )  # fmt: skip
    return table_of(columns, [b for own in _by_dataset(boards).values() for b in own])


def _leaders(board: LeaderboardTable) -> str:
    """Every method whose rank interval holds 1."""
    comparison = board.comparison
    if comparison is None:
        return DASH
    ranked = [e.method for e in entries_of(board) if e.standing and e.standing.rank_low == 1]
    return Markdown(", ".join(link(m, page_of(METHODS, m)) for m in ranked) or DASH)


def _sources_table(sources: Sequence[Source]) -> str:
    columns: tuple[Column[Source], ...] = (
        Column("file", "file", lambda s: link(s.file, f"{RECORDS}/{s.file}"), text=True),
        Column("tables", "all its tables", lambda s: _all_tables(s, RECORDS), text=True),
        Column("sha256", "SHA-256", lambda s: code(s.sha256[:12]), text=True),
        Column("count", "records", lambda s: f"{len(s.records):,}"),
    )
    return table_of(columns, sources)


_TESTS = "How the ranks were made: paired tests, single classifiers"
_OLD_TESTS = "How the ranks were made: paired tests, sensitivity, other scorers"
_COMMANDS = 3


# Tables of the pages that another document quotes, such as a README: kept equal to the letter.

_BEGIN, _END = "<!-- quoted:", "<!-- /quoted -->"
_QUOTE = re.compile(
    rf"(?P<open>{_BEGIN} (?P<page>\S+) / (?P<heading>.+?) -->\n).*?{_END}", re.DOTALL
)
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _with_quotes(text: str, pages: Mapping[str, str], where: str) -> str:
    """A document with every table that it quotes as it is in the pages now.

    A quote is what stands between `<!-- quoted: PAGE / HEADING -->` and `<!-- /quoted -->`: the
    first table under that heading of that page.

    Raises:
        UsageError: if a quote is not closed or of an unknown page or heading, or there is no table
            under it.
    """
    quotes = list(_QUOTE.finditer(text))
    if not len(quotes) == text.count(_BEGIN) == text.count(_END):
        raise UsageError(
            "a quoted table is not opened or not closed",
            where=where,
            hint=f"write {_BEGIN} PAGE / HEADING --> above and {_END} below each",
        )
    return _QUOTE.sub(lambda q: f"{q['open']}{_table(q, pages)}{_END}", text)


def _table(quote: re.Match[str], pages: Mapping[str, str]) -> str:
    page, heading = quote["page"], quote["heading"]
    if page not in pages:
        raise unknown_name("page", page, pages)
    text = pages[page]
    headings = list(_HEADING.finditer(text))
    names = [h[1] for h in headings]
    if heading not in names:
        raise unknown_name(f"heading of {page}", heading, set(names))
    place = names.index(heading)
    end = headings[place + 1].start() if place + 1 < len(headings) else len(text)
    table = _TABLE.search(text, headings[place].end(), end)
    if table is None:
        raise UsageError("there is no table to quote", where=f"{page} / {heading}")
    return table[0]


# Pages on disk: written, or compared with the records.


def write_pages(out: Path, pages: Mapping[str, str]) -> None:
    """Write every page, and remove pages that an earlier call made and this one does not.

    Raises:
        UsageError: if the folder cannot be written.
    """
    for name, text in pages.items():
        write_text(out / name, text)
    for name in _others(out, pages):
        if _read(out / name).startswith(MARKER):
            (out / name).unlink()


def check_pages(out: Path, pages: Mapping[str, str]) -> None:
    """Refuse pages that are not, to the byte, those of the records.

    Raises:
        InvalidBenchmarkError: naming every page that is absent, differs, or has no records.
    """
    absent = [name for name in pages if not (out / name).is_file()]
    differ = [n for n, text in pages.items() if n not in absent and _read(out / n) != text]
    found = [
        *(f"{name} is absent" for name in absent),
        *(f"{name} is stale or was edited by hand" for name in differ),
        *(f"{name} is of no records" for name in _others(out, pages)),
    ]
    if found:
        raise InvalidBenchmarkError(
            f"the pages are not those of the records: {'; '.join(found)}",
            where=str(out),
            hint="run casl-bench leaderboard, and remove what is of no records",
        )


def write_quotes(documents: Iterable[Path], pages: Mapping[str, str]) -> None:
    """Renew the tables that documents quote; see `_with_quotes`.

    Raises:
        UsageError: if a quote cannot be found, where none is written; or a document cannot be
            written, where those before it are.
    """
    texts = {path: _with_quotes(_read(path), pages, str(path)) for path in documents}
    for path, text in texts.items():
        write_text(path, text)


def check_quotes(documents: Iterable[Path], pages: Mapping[str, str]) -> None:
    """Refuse documents whose quoted tables are not, to the letter, those of the pages.

    Raises:
        UsageError: if a quote cannot be found.
        InvalidBenchmarkError: naming every document that is stale.
    """
    texts = {path: _read(path) for path in documents}
    if stale := [str(p) for p, t in texts.items() if _with_quotes(t, pages, str(p)) != t]:
        raise InvalidBenchmarkError(
            "a quoted table is not that of the pages",
            where=", ".join(stale),
            hint="run casl-bench leaderboard with the same --quotes",
        )


def _others(out: Path, pages: Mapping[str, str]) -> list[str]:
    """Markdown in the folder that is none of the pages."""
    paths = [p for place in (".", DATASETS, METHODS, ARCHIVE) for p in (out / place).glob("*.md")]
    return sorted(name for p in paths if (name := p.relative_to(out).as_posix()) not in pages)


def _read(path: Path) -> str:
    """As stored: line ends are compared, too; what is no text is equal to no page."""
    return read_whole(path).decode("utf-8", errors="replace")
