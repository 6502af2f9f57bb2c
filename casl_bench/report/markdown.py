"""Markdown pieces: tables, numbers with intervals, footnotes, folds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tabulate import tabulate

from casl_bench.core.text import visible

DASH = "—"


class Markdown(str):
    """Text that is markdown already. Any other text is escaped where a table shows it."""

    __slots__ = ()


class Footnotes:
    """Numbered reasons under a table; equal reasons share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> Markdown:
        """The dash that stands for a missing number, with the number of its reason."""
        number = self._numbers.setdefault(reason, len(self._numbers) + 1)
        return Markdown(f"{DASH} [{number}]")

    def under(self, body: str) -> str:
        """The table with one line per reason below it."""
        lines = [f"[{number}] {escape(reason)}  " for reason, number in self._numbers.items()]
        return "\n\n".join([body, "\n".join(lines)]) if lines else body


def escape(text: str) -> Markdown:
    """Text that cannot break a table or become markup, whatever a name or a message holds."""
    if isinstance(text, Markdown):
        return text
    text = re.sub(r"[\\|`*\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", visible(one_line(text)))
    return Markdown(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def number(value: float, digits: int = 2) -> str:
    """With this many decimals, thousands separated, a real minus sign and no minus zero."""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A pipe table; the first `text_columns` columns are aligned left, numbers right."""
    align = ["left"] * text_columns + ["right"] * (len(headers) - text_columns)
    text: str = tabulate(
        rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=align
    )
    return text


def compact(text: str) -> str:
    """The same markdown without the spaces that line columns up: a third smaller on a page."""

    def squeezed(row: re.Match[str]) -> str:
        return re.sub(r"-{4,}", "---", re.sub(r" {2,}", " ", row[0]))

    return re.sub(r"^\|.*$", squeezed, text, flags=re.MULTILINE)


def section(title: str, *parts: str) -> str:
    """A heading and the non-empty parts under it."""
    return "\n\n".join([f"### {title}", *filter(None, parts)])


def fold(summary: str, body: str) -> str:
    """A part that is closed until it is clicked."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n\n{body}\n\n</details>"


def one_line(text: str) -> str:
    """Runs of white space, line breaks included, as single spaces."""
    return " ".join(text.split())
