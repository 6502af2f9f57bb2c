"""A board as one markdown table, with its legend."""

from __future__ import annotations

from collections.abc import Sequence

from casl_bench.report.grouping import mean_measurement, row_name
from casl_bench.report.leaderboard.boards import METHODS, Board, link, page_of
from casl_bench.report.leaderboard.entries import COLUMNS, Entry, Number, entries_of, probe_k
from casl_bench.report.leaderboard.flags import legend, short
from casl_bench.report.markdown import DASH, Footnotes, escape, fold, measured, number, table

_ABOUT = (
    "Ranks are those that paired tests with Holm's correction leave open; methods that share a "
    "letter are not told apart. EPR+ [95 % interval for other images and concepts like these]: "
    "target change over the mean change of the other attributes, divided by what random "
    "directions get; 1 is chance. All else are means over {concepts} concepts{where}. Success: "
    "share of images that the edit flips. Incomplete rows and *controls* have no rank."
)
_SHARED = (
    "Reconstruction is shared by all methods{probe}. Parameters are the most of any concept, "
    "U-Net calls of a fit are those of one concept, in images; time is of the machine that ran it."
)


def board_table(board: Board, up: str = "") -> str:
    """The ranked table of a board with what must be known to read it.

    Args:
        board: to show.
        up: way from the page to the leaderboards' folder, see `link`.
    """
    entries = entries_of(board)
    notes = Footnotes()
    rows = [[_rank(e), _name(e, up), _letters(e), *_numbers(e, notes), *_tail(e)] for e in entries]
    headings = ["rank", "method", "group", *_HEADINGS]
    parts = [about(board), notes.under(table(headings, rows, text_columns=3))]
    return "\n\n".join([*parts, *(text for text in [legend(e.flags for e in entries)] if text)])


def about(board: Board) -> str:
    """What the numbers of a board are, in a few sentences."""
    where = "" if board.comparison is None else " at equal effect"
    k = probe_k(board)
    probe = "" if k is None else f"; probe: accuracy of a linear SVM on a method's {k} best latents"
    return " ".join(
        [
            _ABOUT.format(concepts=len(board.group.concepts), where=where),
            _SHARED.format(probe=probe),
        ]
    )


def method_table(entries: Sequence[Entry], places: Sequence[str]) -> str:
    """One method on several boards, a row each, never a mean over them.

    Args:
        entries: of one method.
        places: what stands in the first cell of each.
    """
    notes = Footnotes()
    rows = [
        [place, _rank(e), _letters(e), *_numbers(e, notes), *_tail(e)]
        for place, e in zip(places, entries, strict=True)
    ]
    body = notes.under(table(["board", "rank", "group", *_HEADINGS], rows, text_columns=3))
    return "\n\n".join([body, *(text for text in [legend(e.flags for e in entries)] if text)])


def published_epr(board: Board) -> str:
    """EPR as the paper defines it, a row a method, a column a concept or data set, in a fold."""
    group = board.group
    notes, rows = Footnotes(), []
    for key in (k for k in group.edits if not k[2] and "#" not in k[1]):
        mean = mean_measurement(group, key, _EPR_RAW, 2, notes)
        if group.across:
            cells = [mean_measurement(group, key, _EPR_RAW, 2, notes, d) for d in group.datasets]
        else:
            found = (group.measurement(key, c, _EPR_RAW) for c in group.concepts)
            cells = [DASH if m is None else measured(m, notes) for m in found]
        rows.append([row_name(key), *cells, mean])
    columns = list(group.datasets) if group.across else group.concepts
    body = notes.under(table(["method", *map(escape, columns), "mean"], rows))
    sentence = (
        "Mean absolute change of the target's logit over that of the other attributes, not "
        "standardised: blind to direction, and to be compared neither between attributes nor at "
        "other effects."
    )
    return fold("EPR as published (EPR raw)", f"{sentence}\n\n{body}")


def folded(title: str, text: str) -> str:
    """A section of the run's own tables, closed and under another title; empty without any."""
    _heading, _, body = text.partition("\n\n")
    return fold(title, body) if body else ""


_EPR_RAW = "epr_raw"
_HEADINGS = ["supervision", "EPR+ ↑", "reached", *(c.heading for c in COLUMNS), "cells", "flags"]


def _rank(entry: Entry) -> str:
    return entry.rank or DASH


def _letters(entry: Entry) -> str:
    return DASH if entry.standing is None else entry.standing.group


def _name(entry: Entry, up: str) -> str:
    if entry.status == "control":
        return f"*{escape(entry.method)}*"
    return link(entry.method, page_of(METHODS, entry.method), up)


def _numbers(entry: Entry, notes: Footnotes) -> list[str]:
    reached = DASH
    if entry.standing is not None:
        reached = f"{entry.standing.reached}/{entry.standing.cells}"
    # First, as reasons are numbered in the order in which a reader meets them.
    headline = _shown(entry.epr_plus, 2, notes)
    cells = [_shown(entry.numbers[c.name], c.digits, notes) for c in COLUMNS]
    return [entry.supervision, headline, reached, *cells]


def _tail(entry: Entry) -> list[str]:
    return [f"{entry.done}/{entry.expected}", short(entry.flags)]


def _shown(found: Number, digits: int, notes: Footnotes) -> str:
    if found.value is None:
        return notes.mark(found.reason) if found.reason else DASH
    text = number(found.value, digits)
    if found.low is not None and found.high is not None:
        text += f" [{number(found.low, digits)}, {number(found.high, digits)}]"
    return text
