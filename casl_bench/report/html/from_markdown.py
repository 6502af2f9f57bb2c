"""Markdown of the tables → HTML: one table, whether read in a terminal or in a browser."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from casl_bench.report.columns import (
    BOARD,
    COSTS,
    EDITS,
    EPR_STANDINGS,
    SHARED_COSTS,
    STANDINGS,
    Column,
)

_OPEN = re.compile(r"<p>&lt;details&gt;\n&lt;summary&gt;(.*?)&lt;/summary&gt;</p>")
_CLOSE = "<p>&lt;/details&gt;</p>"
_NOTES = re.compile(r"<p>(\[1\] .*?)</p>", re.DOTALL)
_NAMED_SECOND = re.compile(
    r"<table>(?=\s*<thead>\s*<tr>\s*<th[^>]*>[^<]*</th>\s*<th[^>]*>method</th>)"
)
_HEADER = re.compile(r"<th([^>]*)>([^<]+)</th>")
FEW_NOTES = 6
"""More notes than these under a table are folded."""
_HEADING = re.compile(r"\A#+ (.+)\n\n?")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return parser.disable(
        ["html_inline", "html_block", "link", "image", "autolink", "reference", "code"]
    )


def to_html(text: str) -> Markup:
    """HTML of a report's markdown, whose names are escaped; wide tables scroll on their own."""
    html = _parser().render(text)
    html = _OPEN.sub(r"<details><summary>\1</summary>", html).replace(_CLOSE, "</details>")
    html = _NAMED_SECOND.sub('<table class="second">', _NOTES.sub(_notes, html))
    html = _HEADER.sub(_with_note, html)
    html = html.replace(
        "<table", '<div class="scroll" tabindex="0" role="region" aria-label="table"><table'
    )
    return Markup(html.replace("</table>", "</table></div>"))


@cache
def _column_notes() -> dict[str, str]:
    columns: list[Column[Any]] = [*EDITS, *BOARD, *COSTS, *SHARED_COSTS, *EPR_STANDINGS, *STANDINGS]
    return {column.header: column.note for column in columns if column.note}


def _with_note(found: re.Match[str]) -> str:
    """A heading with the note of its column, shown where the pointer rests."""
    note = _column_notes().get(found[2])
    return f'<th{found[1]} title="{escape(note)}">{found[2]}</th>' if note else found[0]


def _notes(found: re.Match[str]) -> str:
    """Reasons under a table; a long list of them is folded."""
    notes = f'<p class="notes">{found[1]}</p>'
    count = found[1].count("\n") + 1
    if count <= FEW_NOTES:
        return notes
    return f"<details><summary>[1] to [{count}]: why a number is missing</summary>{notes}</details>"


def fold_first(html: Markup, summary: str) -> Markup:
    """The same with its first paragraph folded: how to read a table, above the table."""
    start, end = "<p>", "</p>"
    if not html.startswith(start):
        return html
    first, _, rest = html.partition(end)
    # Of slices of what is safe already.
    return Markup("<details><summary>{}</summary>{}{}</details>{}").format(
        summary, first, Markup(end), rest
    )


def without_heading(text: str) -> tuple[str, str]:
    """(heading, the rest) of a section; the heading is empty where there is none."""
    found = _HEADING.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)
