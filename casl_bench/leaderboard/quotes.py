"""Tables of the pages that another document quotes, such as a README: kept equal to the letter."""

from __future__ import annotations

import re
from collections.abc import Mapping

from casl_bench.core.errors import UsageError, unknown_name

_BEGIN, _END = "<!-- quoted:", "<!-- /quoted -->"
_QUOTE = re.compile(
    rf"(?P<open>{_BEGIN} (?P<page>\S+) / (?P<heading>.+?) -->\n).*?{_END}", re.DOTALL
)
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def with_quotes(text: str, pages: Mapping[str, str], *, where: str = "") -> str:
    """A document with every table that it quotes as it is in the pages now.

    A quote is what stands between `<!-- quoted: PAGE / HEADING -->` and `<!-- /quoted -->`: the
    first table under that heading of that page.

    Args:
        text: the document.
        pages: path relative to the leaderboards' folder → text.
        where: the document's name, for errors.

    Raises:
        UsageError: if a quote is not closed or of an unknown page or heading, or there is no table
            under it.
    """
    quotes = list(_QUOTE.finditer(text))
    if not len(quotes) == text.count(_BEGIN) == text.count(_END):
        raise UsageError(
            "a quoted table is not opened or not closed",
            where=where,
            mend=f"write {_BEGIN} PAGE / HEADING --> above and {_END} below each",
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
