"""Where pages lie and how they link to each other."""

from __future__ import annotations

import re

from casl_bench.core.content_hash import hash_json
from casl_bench.reports.markdown import escape

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
    text = " ".join(text.split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text}{space}{ticks}"
