"""Numbers and pictures → a folder of pages, whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from casl_bench.analysis.analyse import read_numbers
from casl_bench.core.errors import UsageError
from casl_bench.core.files import partial_folder, read_whole
from casl_bench.core.text import visible
from casl_bench.report.grouping import Group, Part, RowKey, parts_of
from casl_bench.report.html.edit_grid import Sheets
from casl_bench.report.html.figures import Figures, Style, label, slug, standings_chart, styles_of
from casl_bench.report.html.from_markdown import to_html, without_heading
from casl_bench.report.html.lead import CSV, JSON, Lead, lead_of, write_downloads
from casl_bench.report.html.sections import (
    Section,
    bounds_of,
    closing_sections,
    controls_section,
    detail_sections,
    edits_section,
    has_curve,
    is_shown,
    latents_section,
    model_sections,
    ranking_sections,
    shift_part,
    trial_part,
)
from casl_bench.report.tables import group_title, overall_text
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import RecordStore


@dataclass(frozen=True)
class Source:
    """What a report is made of; without a store there are numbers, but no pictures or scores."""

    name: str
    records: tuple[RunRecord, ...]
    store: RecordStore | None

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a run folder, or a file of numbers.

        Raises:
            UsageError: if it holds no record.
            InvalidBenchmarkError: if a record or a file kept with one is corrupt.
        """
        store = None if path.is_file() else RecordStore(path)
        return cls(path.name, tuple(read_numbers(path)), store)


INDEX = "index.html"
GENERATOR = "casl-bench report"
"""Named in every page as its generator: a folder without it is not ours to replace."""
_STATIC = ("report.css", "report.js")


@dataclass(frozen=True)
class Choice:
    """A row that a reader may show or hide."""

    name: str
    style: Style
    checked: bool


@dataclass(frozen=True)
class Link:
    """Another page of the report."""

    file: str
    name: str


@dataclass(frozen=True)
class Page:
    """One HTML file; with `faults`, broken bounds as sentences, it has no ranking."""

    file: str
    title: str
    about: Markup
    faults: tuple[str, ...]
    sections: Sequence[Section]
    lead: Lead | None = None
    choices: Sequence[Choice] = ()


def write_report(source: Source, out: Path) -> Path:
    """Write a report into a folder that is new, empty, or holds an older one, which is replaced.

    Returns:
        The page to open.

    Raises:
        UsageError: if the folder holds other things or cannot be written.
        InvalidBenchmarkError: if a file kept with a record is corrupt.
    """

    def make(folder: Path) -> list[Page]:
        write_downloads(source.records, folder)
        return _pages(source, folder)

    return write_folder(out, make)


def write_folder(out: Path, make: Callable[[Path], Sequence[Page]]) -> Path:
    """Write pages, which `make` may add files beside, as `write_report` does; the page to open."""
    _check_out(out)
    with partial_folder(out.parent, out.name) as folder:
        work = folder / "report"
        work.mkdir()
        _write_pages(make(work), work)
        if out.exists():
            out.rename(folder / "replaced")
        shutil.move(work, out)
        out.chmod(0o755)
    return out / INDEX


def _pages(source: Source, folder: Path) -> list[Page]:
    """All pages; a report of one data set is one page."""
    parts = parts_of(source.records)
    figures, sheets = Figures(folder), Sheets(folder)
    single = sum(len(part.groups) for part in parts) == 1
    pages: list[Page] = []
    sections: list[Section] = []
    faults: list[str] = []
    for part in parts:
        styles = styles_of(_rows(part))
        own = []
        for group in part.groups:
            file = f"{len(pages) + 1:02d}-{slug(group.first.dataset)}.html"
            file = INDEX if single else file
            own.append(_group_page(group, file, source, styles, figures, sheets))
            pages.append(own[-1])
        faults += [fault for page in own for fault in page.faults]
        sections += _overall_sections(part, own, len(sections), styles, figures)
    if not single:
        about = to_html(f"{len(source.records)} records, {len(pages)} data sets.")
        over_all = next((p.overall for p in parts if p.overall is not None), None)
        lead = lead_of(over_all, {}) if over_all is not None and not faults else None
        pages.insert(0, Page(INDEX, "Concept editing", about, tuple(faults), sections, lead))
    return pages


def _rows(part: Part) -> list[RowKey]:
    """All rows: methods that are compared, best first; others by name; controls last."""
    groups = [*([part.overall] if part.overall else []), *part.groups]
    records = [r for g in groups for r in g.of_kind("comparison")]
    compared = [RowKey(False, s.method) for r in records if r.comparison
                for s in r.comparison.standings]  # fmt: skip
    others = sorted(key for g in part.groups for key in g.edits)
    return list(dict.fromkeys([*compared, *others]))


def _group_page(
    group: Group,
    file: str,
    source: Source,
    styles: dict[RowKey, Style],
    figures: Figures,
    sheets: Sheets,
) -> Page:
    bounds = bounds_of(group.records)
    faults = tuple(fault for bound in bounds for fault in bound.faults)
    title, about = without_heading(group_title(group))
    pictures = edits_section(group, source.store, styles, figures, sheets)
    closing = closing_sections(group, source.name)
    if group.is_trial:
        sections = [trial_part(group), pictures, *closing]
    else:
        rankings = [] if faults else ranking_sections(group, styles, figures)
        sections = [
            *rankings[:1],
            pictures,
            *rankings[1:],
            shift_part(group),
            controls_section(bounds),
            *detail_sections(group),
            *model_sections(group, figures),
            latents_section(group, source.store, sheets),
            *closing,
        ]
    return Page(
        file,
        Markup(to_html(title)).striptags(),
        to_html(about),
        faults,
        sections,
        None if faults else lead_of(group, styles),
        _choices(group, styles),
    )


def _choices(group: Group, styles: dict[RowKey, Style]) -> list[Choice]:
    """Rows with pictures or curves; of the controls those with curves are shown at first."""
    return [
        Choice(label(key), style, has_curve(key))
        for key, style in styles.items()
        if key in group.edits and (is_shown(key) or has_curve(key))
    ]


def _overall_sections(
    part: Part, pages: Sequence[Page], place: int, styles: dict[RowKey, Style], figures: Figures
) -> list[Section]:
    """Links to the pages of the data sets of a part, and means over all of them."""
    links = [Link(page.file, page.title) for page in pages]
    found = [Section(f"pages-{place}", "Data sets", macro="links", content=links)]
    text = "" if any(page.faults for page in pages) else overall_text(part)
    if text:
        about, *tables = re.split(r"^(?=### )", text, flags=re.MULTILINE)
        comparison = part.overall.comparison if part.overall else None
        drawn = []
        if comparison is not None and comparison.standings:
            drawn.append(standings_chart(comparison, "all data sets", styles, figures))
        for number, words in enumerate([about, *tables]):
            title, body = without_heading(words)
            # The comparison is the first of the tables.
            own = drawn if number == 1 else []
            heading = to_html(title).striptags()
            found.append(Section(f"overall-{place}-{number}", heading, to_html(body), own))
    return found


def _write_pages(pages: Sequence[Page], folder: Path) -> None:
    environment = Environment(
        loader=PackageLoader("casl_bench.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    links = [Link(page.file, page.title) for page in pages]
    both = (Link(CSV, "CSV"), Link(JSON, "JSON"))
    for page in pages:
        html = template.render(page=page, links=links, generator=GENERATOR, downloads=both)
        (folder / page.file).write_text(html, encoding="utf-8")
    static = files("casl_bench.report.html") / "static"
    for name in _STATIC:
        (folder / name).write_bytes((static / name).read_bytes())


def _as_text(value: object) -> object:
    """What a template shows: names steer nothing there, as nowhere; markup is made of such text."""
    return visible(value) if type(value) is str else value


def _check_out(out: Path) -> None:
    """Refuse a folder with anything in it that is not an older report."""
    try:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        index = out / INDEX
        text = read_whole(index).decode("utf-8", "replace") if index.is_file() else ""
        ours = f'content="{GENERATOR}"' in text
    except OSError as error:
        raise UsageError(f"cannot use --out: {error.strerror or error}", where=str(out)) from error
    if not ours:
        raise UsageError(
            "the folder is not empty and holds no report",
            where=str(out),
            hint="give --out a new folder",
        )
