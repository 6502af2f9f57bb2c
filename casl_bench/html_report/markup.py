"""Markdown of the tables → HTML: one table, whether read in a terminal or in a browser.

Raw HTML, links and pictures are not markdown here: whatever a record holds comes out as text.
"""

from __future__ import annotations

import re
from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup

_OPEN = re.compile(r"<p>&lt;details&gt;\n&lt;summary&gt;(.*?)&lt;/summary&gt;</p>")
_CLOSE = "<p>&lt;/details&gt;</p>"
_HEADING = re.compile(r"\A#+ (.+)\n\n?")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return parser.disable(
        ["html_inline", "html_block", "link", "image", "autolink", "reference", "code"]
    )


def to_html(text: str) -> Markup:
    """HTML of a report's markdown; wide tables scroll on their own, folds are folds.

    Args:
        text: of `casl_bench.reports`, where names are escaped by `reports.markdown.escape`.
    """
    html = _parser().render(text)
    html = _OPEN.sub(r"<details><summary>\1</summary>", html).replace(_CLOSE, "</details>")
    html = html.replace("<p>[1] ", '<p class="notes">[1] ').replace(
        "<table>", '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>'
    )
    return Markup(html.replace("</table>", "</table></div>"))


def fold_first(html: Markup, summary: str) -> Markup:
    """The same with its first paragraph folded: long words that stand above what is looked for."""
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
