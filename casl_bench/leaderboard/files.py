"""Pages on disk: written, or compared with what the records say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import write_text
from casl_bench.leaderboard.places import DATASETS, MARKER, METHODS
from casl_bench.leaderboard.quotes import with_quotes


def write_pages(out: Path, pages: Mapping[str, str]) -> None:
    """Write every page, and remove pages that an earlier call made and this one does not.

    Args:
        out: the leaderboards' folder.
        pages: relative path → text.

    Raises:
        UsageError: if the folder cannot be written.
    """
    for name, text in pages.items():
        write_text(out / name, text)
    for name in _others(out, pages):
        if _read(out / name).startswith(MARKER):
            (out / name).unlink()


def check_pages(out: Path, pages: Mapping[str, str]) -> None:
    """Refuse pages that are not, to the byte, what the records say.

    Args:
        out: the leaderboards' folder.
        pages: relative path → text as it should be.

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
            mend="run casl-bench leaderboard, and remove what is of no records",
        )


def write_quotes(documents: Iterable[Path], pages: Mapping[str, str]) -> None:
    """Renew the tables that documents quote; see `with_quotes`.

    Raises:
        UsageError: if a quote cannot be found, where none is written; or a document cannot be
            written, where those before it are.
    """
    texts = {path: with_quotes(_read(path), pages, where=str(path)) for path in documents}
    for path, text in texts.items():
        write_text(path, text)


def check_quotes(documents: Iterable[Path], pages: Mapping[str, str]) -> None:
    """Refuse documents whose quoted tables are not, to the letter, those of the pages.

    Raises:
        UsageError: if a quote cannot be found.
        InvalidBenchmarkError: naming every document that is stale.
    """
    texts = {path: _read(path) for path in documents}
    if stale := [str(p) for p, t in texts.items() if with_quotes(t, pages, where=str(p)) != t]:
        raise InvalidBenchmarkError(
            "a quoted table is not that of the pages",
            where=", ".join(stale),
            mend="run casl-bench leaderboard with the same --quotes",
        )


def _others(out: Path, pages: Mapping[str, str]) -> list[str]:
    """Markdown in the folder that is none of the pages."""
    paths = [p for place in (".", DATASETS, METHODS) for p in (out / place).glob("*.md")]
    return sorted(name for p in paths if (name := p.relative_to(out).as_posix()) not in pages)


def _read(path: Path) -> str:
    """As stored: line ends are compared, too; what is no text is equal to no page."""
    return path.read_bytes().decode("utf-8", errors="replace")
