"""What the site needs beside the pages as they lie here: the README as its front page."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Pages as the site has them: links to files that are not on it become names of these files."""
    source = DOCS / page.file.src_uri
    if page.file.src_uri == "index.md":
        source = DOCS.parent / "README.md"
        markdown = source.read_text(encoding="utf-8")

    def on_site(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups()
        if "://" in target:
            return link[0]
        path = (source.parent / target).resolve()
        if path.is_relative_to(DOCS) and path.is_file():
            base = (DOCS / page.file.src_uri).parent
            relative = Path(os.path.relpath(path, base)).as_posix()
            return f"{picture}[{text}]({relative}{anchor or ''})"
        inside = path.relative_to(DOCS.parent).as_posix()
        return text if text.strip("`") == inside else f"{text} (`{inside}`)"

    return _LINK.sub(on_site, markdown)
