"""Records and pictures → a folder of pages, whole or not at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from casl_bench.analysis import controls
from casl_bench.analysis.analyse import read_numbers
from casl_bench.analysis.controls import Records
from casl_bench.cache.store import Cache, cache_of
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import make_folder
from casl_bench.report.columns import classifier_section, concept_section, edit_section
from casl_bench.report.cost_tables import cost_section
from casl_bench.report.grouping import Group, RowKey
from casl_bench.report.html.edit_grid import (
    EditGrid,
    Kept,
    Sheet,
    edit_grid,
    logit_spreads,
    new_sheet,
)
from casl_bench.report.html.figures import (
    Drawing,
    Figures,
    Matrix,
    Style,
    concept_curves,
    drift_matrices,
    is_first_of_its_kind,
    label,
    probe_chart,
    slug,
    standings_chart,
    styles_of,
)
from casl_bench.report.html.top_latents import LatentImages, top_latents
from casl_bench.report.markdown import escape, table
from casl_bench.report.model_tables import (
    drift_section,
    probe_section,
    reconstruction_section,
    sae_section,
    scorer_section,
)
from casl_bench.report.pictures import load_images
from casl_bench.report.tables import comparison_section, group_title, level_section, overall_text
from casl_bench.results.record import ALL, RunRecord
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.score_table import ScoreTable

# Controls and what each must show: whether a data set's numbers may be believed.


@dataclass(frozen=True)
class Bound:
    """A control, what it must show, and what it shows.

    Attributes:
        control: its name.
        must: what holds if metrics, scorers and runner work.
        faults: what does not hold, as sentences; empty where all does.
        was_run: whether any cell of it is done; where none is, the bound says nothing.
    """

    control: str
    must: str
    faults: tuple[str, ...]
    was_run: bool

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.faults:
            return "broken"
        return "holds" if self.was_run else "not run"


_BOUNDS: tuple[tuple[str, str, Callable[[Records], list[str]]], ...] = (
    ("identity", "moves no attribute, and has no EPR", controls.identity_bound),
    (
        "oracle",
        f"flips {controls.ORACLE_FLIPS:.0%} of the images, and no method has more than "
        f"{controls.SURPASSED:g} times its EPR+",
        controls.oracle_bound,
    ),
    (
        "random_direction",
        f"no draw has {controls.DRAWS_APART:g} times the EPR of the others, and none beside a "
        "method flips as many images as the oracle",
        controls.random_bound,
    ),
    (
        "shuffled",
        f"moves the target by at most {controls.SHUFFLED_SHARE:.0%} of the full effect, with no "
        "EPR+ over chance",
        controls.shuffled_bound,
    ),
    ("inverted", "has a negative EPR+, and the oracle's raw EPR", controls.inverted_bound),
    ("destroy", "is seen by the guards of quality and identity", controls.destroy_bound),
    (
        "pixel_attack",
        "wins raw EPR by the classifier it attacks, and the others see at most "
        f"{controls.FOOLED_SHARE:.0%} of it",
        controls.pixel_attack_bound,
    ),
)


def bounds_of(records: Sequence[RunRecord]) -> list[Bound]:
    """Every control's bound.

    Args:
        records: of one data set.
    """
    done = {r.method for r in records if r.kind == "edit" and r.control and r.status == "done"}
    return [Bound(name, must, tuple(of(records)), name in done) for name, must, of in _BOUNDS]


# What a report is made of: a run folder with pictures and scores, or a file of records alone.


@dataclass(frozen=True)
class Source:
    """Where a report's content comes from.

    Attributes:
        path: a run folder or a records.jsonl.
        records: one or more.
        store: of the run folder; None where records are all there is.
        cache: where artefacts of the run are looked for.
    """

    path: Path
    records: tuple[RunRecord, ...]
    store: RecordStore | None
    cache: Path

    @classmethod
    def read(cls, path: Path, cache: Path | None = None) -> Source:
        """Read a run folder or a records.jsonl.

        Args:
            path: of either.
            cache: of the run; None for its own, or the one that runs share by default.

        Raises:
            UsageError: if it holds no record.
            InvalidBenchmarkError: if a record or a file kept with one is corrupt.
        """
        store = None if path.is_file() else RecordStore(path)
        records = read_numbers(path)
        if not records:
            raise UsageError(
                "no records", where=str(path), mend="give a run folder or a records.jsonl"
            )
        return cls(path, tuple(records), store, cache or cache_of(path))


@dataclass(frozen=True)
class Part:
    """Data sets of one world, suite and seed: what a report shows beside each other.

    Attributes:
        groups: one a data set and revision.
        across: records that compare methods over these data sets.
    """

    groups: tuple[Group, ...]
    across: tuple[RunRecord, ...]


def parts_of(records: Sequence[RunRecord]) -> list[Part]:
    """Records sorted into what may be compared, in an order that does not depend on theirs."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[RunRecord]]] = {}
    across: dict[tuple[str, ...], list[RunRecord]] = {}
    for r in records:
        suite = (r.suite.name, str(r.suite.version), "quick" if r.suite.quick else "")
        shared = (r.world, *suite, f"{r.seed:020d}")
        if r.kind == "comparison" and r.dataset == ALL:
            across.setdefault(shared, []).append(r)
        else:
            own = groups.setdefault(shared, {})
            own.setdefault((r.dataset, r.dataset_revision), []).append(r)
    return [
        Part(
            tuple(Group(groups[shared][key]) for key in sorted(groups[shared])),
            tuple(across.get(shared, [])),
        )
        for shared in sorted(groups)
    ]


# Markdown of the tables → HTML: one table, whether read in a terminal or in a browser.


_OPEN = re.compile(r"<p>&lt;details&gt;\n&lt;summary&gt;(.*?)&lt;/summary&gt;</p>")
_CLOSE = "<p>&lt;/details&gt;</p>"
_NOTES = re.compile(r"<p>(\[1\] .*?)</p>", re.DOTALL)
_NAMED_SECOND = re.compile(
    r"<table>(?=\s*<thead>\s*<tr>\s*<th[^>]*>[^<]*</th>\s*<th[^>]*>method</th>)"
)
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
    """HTML of a report's markdown; wide tables scroll on their own, folds are folds.

    Args:
        text: of `casl_bench.reports`, where names are escaped by `reports.markdown.escape`.
    """
    html = _parser().render(text)
    html = _OPEN.sub(r"<details><summary>\1</summary>", html).replace(_CLOSE, "</details>")
    html = _NAMED_SECOND.sub('<table class="second">', _NOTES.sub(_notes, html))
    html = html.replace(
        "<table", '<div class="scroll" tabindex="0" role="region" aria-label="table"><table'
    )
    return Markup(html.replace("</table>", "</table></div>"))


def _notes(found: re.Match[str]) -> str:
    """Reasons under a table; a long list of them is folded."""
    notes = f'<p class="notes">{found[1]}</p>'
    count = found[1].count("\n") + 1
    if count <= FEW_NOTES:
        return notes
    return f"<details><summary>[1] to [{count}]: why a number is missing</summary>{notes}</details>"


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


# The sections of a data set's page, each a function of its records: what there is, or why not.


_NO_COMPARISON = (
    "Not compared: no cell of these records compares methods at equal effect (a run writes one "
    "once every method has run every concept)."
)


@dataclass
class Section:
    """A part of a page.

    Attributes:
        id: its anchor.
        title: its heading.
        text: tables and sentences.
        figures: under them.
        bounds: of the controls.
        matrices: of drift.
        macro: of the template, that shows `content`.
        content: what the macro is given.
    """

    id: str
    title: str
    text: Markup = field(default_factory=Markup)
    figures: Sequence[Drawing] = ()
    bounds: Sequence[Bound] = ()
    matrices: Sequence[Matrix] = ()
    macro: str = ""
    content: object = None


def controls_section(bounds: Sequence[Bound]) -> Section:
    """The controls, what each must show, and whether it does."""
    about = (
        "What must hold if metrics, scorers and runner work. A bound that is broken makes all "
        "numbers of the data set meaningless. What the controls measured stands under Edits."
    )
    return Section("controls", "Controls and their bounds", to_html(about), bounds=bounds)


def ranking_sections(
    group: Group, styles: Mapping[RowKey, Style], figures: Figures
) -> list[Section]:
    """Standings with their figure, then the means of all measurements."""
    standings = comparison_section(group, "At equal effect")
    drawn = [
        standings_chart(r.comparison, r.dataset, styles, figures)
        for r in group.of_kind("comparison")
        if r.comparison is not None and r.comparison.standings
    ]
    text = _html(standings, _NO_COMPARISON)
    text = fold_first(text, "How to read this") if standings else text
    return [
        Section("standings", "Leaderboard: methods at equal effect", text, drawn),
        Section("edits", "Edits: means over concepts",
                _html(edit_section(group), "No edit is among these records.")),
    ]  # fmt: skip


def drift_part(group: Group) -> Section:
    """Mean drift by attribute, then concepts × attributes of each method."""
    # The report has its own, shaded matrices in the place of the folded ones.
    summary, _, _ = drift_section(group).partition("<details>")
    text = _html(summary, "No record holds what else changed.")
    return Section("drift", "Drift of the other attributes", text, matrices=drift_matrices(group))


def detail_sections(group: Group) -> list[Section]:
    """What stands behind the means."""
    found = [
        Section("by-concept", "Edits by concept", _html(concept_section(group), "")),
        Section("levels", "Strengths at equal effect", _html(level_section(group), "")),
        Section("by-classifier", "Edits by classifier", _html(classifier_section(group), "")),
    ]
    return [section for section in found if section.text]


def model_sections(group: Group, figures: Figures) -> list[Section]:
    """Reconstruction, probe, SAE and scorers."""
    probes = [r for r in group.of_kind("probe") if r.status == "done"]
    drawn = []
    for method in sorted({r.method or "" for r in probes}):
        own = [r for r in probes if (r.method or "") == method]
        drawn.append(probe_chart(own, group.records[0].dataset, method, figures))
    return [
        Section("reconstruction", "Reconstruction without an edit",
                _html(reconstruction_section(group.of_kind("reconstruction")),
                      "No reconstruction is among these records.")),
        Section("probe", "Probe accuracy by k",
                _html(probe_section(probes), "No probe is among these records."),
                [figure for figure in drawn if figure is not None]),
        Section("sae", "SAE quality",
                _html(sae_section(group.of_kind("sae")), "No SAE is among these records.")),
        Section("scorers", "Scorers on trial",
                _html(scorer_section(group.of_kind("scorer")),
                      "No trial of a scorer is among these records.")),
    ]  # fmt: skip


def closing_sections(group: Group, source: str) -> list[Section]:
    """Cost, what failed, and where all of it comes from."""
    failed = [r for r in group.records if r.error is not None]
    rows = [
        [escape(r.method or r.kind), escape(r.concept or ""), r.status,
         escape(f"{r.error.type}: {r.error.message}") if r.error else ""]
        for r in failed
    ]  # fmt: skip
    found = [Section("cost", "Cost", _html(cost_section(group), "No edit is among these records."))]
    if rows:
        body = table(["what", "concept", "status", "why"], rows, text_columns=4)
        found.append(Section("failed", "Failed or skipped", to_html(body)))
    return [*found, Section("origin", "Where this comes from", to_html(_origin(group, source)))]


def _origin(group: Group, source: str) -> str:
    """Records, commands, code and packages."""
    records: Sequence[RunRecord] = group.records
    lines = [f"{len(records)} records of {escape(source)}."]
    commands = sorted({" ".join(r.provenance.argv) for r in records} - {""})
    lines += [f"Command: {escape(command)}" for command in commands]
    for commit, dirty in sorted({(r.provenance.git_commit or "unknown", r.provenance.git_dirty)
                                 for r in records}, key=str):  # fmt: skip
        changed = ", **with changes that are not committed**" if dirty else ""
        lines.append(f"Code: commit {escape(commit)}{changed}.")
    packages = sorted({f"{n} {v}" for r in records for n, v in r.provenance.packages.items()})
    if packages:
        lines.append(f"Packages: {escape(', '.join(packages))}.")
    return "\n\n".join(lines)


def _html(text: str, otherwise: str) -> Markup:
    """A section of the tables without its heading, or the sentence that stands in its place."""
    _, body = without_heading(text)
    return to_html(body or otherwise)


# Pictures and curves of every concept of a data set, as far as a run folder keeps them.


_SELF_EVIDENT = ("identity", "oracle")
"""Controls whose pictures stand in every grid already: the reconstruction and the oracle."""
_WITH_CURVES = ("oracle", "random_direction")


@dataclass(frozen=True)
class ConceptPart:
    """A concept in a page.

    Attributes:
        name: of the concept.
        grid: its pictures; None where none are kept.
        figures: its curves.
    """

    name: str
    grid: EditGrid | None
    figures: Sequence[Drawing]


@dataclass(frozen=True)
class LatentPart:
    """A latent in a page.

    Attributes:
        found: the latent.
        styles: (picture, dimmed picture) of each image as CSS.
    """

    found: LatentImages
    styles: tuple[tuple[str, str], ...]


class Sheets:
    """The files of pictures of one report.

    Args:
        report: the report's folder.
    """

    def __init__(self, report: Path) -> None:
        self._report, self._numbers = report, count(1)

    def new(self, name: str) -> Sheet:
        """An empty sheet."""
        return new_sheet(next(self._numbers), name)

    def write(self, sheet: Sheet) -> None:
        """Keep a full one."""
        sheet.write(self._report)


def edits_section(
    group: Group,
    store: RecordStore | None,
    styles: Mapping[RowKey, Style],
    figures: Figures,
    sheets: Sheets,
) -> Section:
    """One part a concept: its grid of pictures and its curves."""
    scored: dict[str, ScoreTable] = {}
    pictured = {c: _pictured(group, c, styles) for c in group.concepts}
    if store is not None:
        shown = [r for own in pictured.values() for r in own.values()]
        scored = {r.record_id: t for r in shown if (t := store.scores(r)) is not None}
        spreads = logit_spreads([(r, scored[r.record_id]) for r in shown if r.record_id in scored])
    parts = []
    for concept, own in pictured.items():
        grid = None
        if store is not None and own:
            sheet = sheets.new(f"{group.records[0].dataset}-{concept}")
            kept = {
                key: Kept(r, load_images(store, r), scored.get(r.record_id))
                for key, r in own.items()
            }
            grid = edit_grid(kept, styles, spreads, sheet)
            sheets.write(sheet)
        rows = {key: style for key, style in styles.items() if has_curve(key)}
        parts.append(ConceptPart(concept, grid, concept_curves(group, concept, rows, figures)))
    return Section("pictures", "Pictures and curves by concept", macro="concepts", content=parts)


def latents_section(group: Group, source: Source, sheets: Sheets) -> Section:
    """Images that activate the best aligned latents of each concept, or why there are none."""
    section = Section("latents", "What the aligned latents respond to", macro="latents")
    if source.store is None:
        section.content = "These are records alone: the SAE and its activations are not with them."
        return section
    try:
        found = top_latents(source.path, group.records, Cache(source.cache))
    except ImportError:
        section.content = "Reading the SAE needs torch, which is not installed here."
        return section
    except InvalidBenchmarkError as error:
        section.content = f"The cache's artefacts cannot be read: {error.what}."
        return section
    if not found:
        section.content = (
            "The cache holds no alignment of these records together with the SAE and the "
            "activations of the test images."
        )
        return section
    shown: dict[str, tuple[Sheet, list[LatentPart]]] = {}
    for concept, latents in found.items():
        sheet = sheets.new(f"{group.records[0].dataset}-{concept}-latents")
        numbers = [
            [(sheet.add(picture), sheet.add(dimmed)) for picture, dimmed in latent.pictures]
            for latent in latents
        ]
        shown[concept] = (
            sheet,
            [
                LatentPart(latent, tuple((sheet.style(a), sheet.style(b)) for a, b in own))
                for latent, own in zip(latents, numbers, strict=True)
            ],
        )
        sheets.write(sheet)
    section.content = shown
    return section


def _pictured(
    group: Group, concept: str, styles: Mapping[RowKey, Style]
) -> dict[RowKey, RunRecord]:
    """Row → its record with pictures; further draws of a control are left out."""
    found = {}
    for key in styles:
        record = group.done(key).get(concept) if key in group.edits else None
        if record is not None and record.images is not None and is_shown(key):
            found[key] = record
    return found


def is_shown(key: RowKey) -> bool:
    """Whether a row has pictures of its own in the grids."""
    control, method, _ = key
    return is_first_of_its_kind(key) and not (control and method in _SELF_EVIDENT)


def has_curve(key: RowKey) -> bool:
    """Whether a row is in the figures of curves."""
    control, method, _ = key
    return is_first_of_its_kind(key) and not (control and method not in _WITH_CURVES)


INDEX = "index.html"
GENERATOR = "casl-bench report"
"""What the pages say made them: a folder without it is not ours to replace."""
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
    """One HTML file.

    Attributes:
        file: its name.
        title: its heading.
        about: what must be known before any number is read.
        faults: broken bounds, as sentences; no ranking is on a page that has any.
        sections: in order.
        choices: rows that can be hidden.
    """

    file: str
    title: str
    about: Markup
    faults: tuple[str, ...]
    sections: Sequence[Section]
    choices: Sequence[Choice] = ()


def write_report(source: Source, out: Path) -> Path:
    """Write the report of these records.

    Args:
        source: what it is made of.
        out: a folder that is new, empty, or holds an older report, which is replaced.

    Returns:
        The page to open.

    Raises:
        UsageError: if the folder holds other things or cannot be written.
        InvalidBenchmarkError: if a file kept with a record is corrupt.
    """
    _check_out(out)
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        work = Path(folder) / "report"
        work.mkdir()
        _write_pages(_pages(source, work), work)
        _move_into_place(work, out)
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
            file = f"{len(pages) + 1:02d}-{slug(group.records[0].dataset)}.html"
            file = INDEX if single else file
            own.append(_group_page(group, file, source, styles, figures, sheets))
            pages.append(own[-1])
        faults += [fault for page in own for fault in page.faults]
        sections += _overall_sections(part, own, len(sections), styles, figures)
    if not single:
        about = to_html(f"{len(source.records)} records, {len(pages)} data sets.")
        pages.insert(0, Page(INDEX, "Concept editing", about, tuple(faults), sections))
    return pages


def _rows(part: Part) -> list[RowKey]:
    """All rows: methods that are compared, best first; others by name; controls last."""
    records = [*part.across, *(r for g in part.groups for r in g.of_kind("comparison"))]
    compared = [(False, s.method, "") for r in records if r.comparison
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
    rankings = [] if faults else ranking_sections(group, styles, figures)
    return Page(
        file,
        Markup(to_html(title)).striptags(),
        to_html(about),
        faults,
        [
            *rankings[:1],
            edits_section(group, source.store, styles, figures, sheets),
            *rankings[1:],
            drift_part(group),
            controls_section(bounds),
            *detail_sections(group),
            *model_sections(group, figures),
            latents_section(group, source, sheets),
            *closing_sections(group, source.path.name),
        ],
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
    text = "" if any(page.faults for page in pages) else overall_text(part.groups, part.across)
    if text:
        about, *tables = re.split(r"^(?=### )", text, flags=re.MULTILINE)
        drawn = [
            standings_chart(r.comparison, "all data sets", styles, figures)
            for r in part.across
            if r.comparison is not None and r.comparison.standings
        ]
        for number, words in enumerate([about, *tables]):
            title, body = without_heading(words)
            # The comparison is the first of the tables.
            figures_of_it = drawn if number == 1 else []
            heading = to_html(title).striptags()
            found.append(
                Section(f"overall-{place}-{number}", heading, to_html(body), figures_of_it)
            )
    return found


def _write_pages(pages: Sequence[Page], folder: Path) -> None:
    environment = Environment(
        loader=PackageLoader("casl_bench.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    links = [Link(page.file, page.title) for page in pages]
    for page in pages:
        html = template.render(page=page, links=links, generator=GENERATOR)
        (folder / page.file).write_text(html, encoding="utf-8")
    static = files("casl_bench.report.html") / "static"
    for name in _STATIC:
        (folder / name).write_bytes((static / name).read_bytes())


def _check_out(out: Path) -> None:
    """Refuse a folder with anything in it that is not an older report."""
    try:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        index = out / INDEX
        ours = index.is_file() and f'content="{GENERATOR}"' in index.read_text("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"cannot use --out: {error.strerror or error}", where=str(out)) from error
    if not ours:
        raise UsageError(
            "the folder is not empty and holds no report",
            where=str(out),
            mend="give --out a new folder",
        )


def _move_into_place(work: Path, out: Path) -> None:
    try:
        if out.exists():
            out.rename(work.with_name("replaced"))
        shutil.move(work, out)
        out.chmod(0o755)
    except OSError as error:
        raise UsageError(f"cannot write: {error.strerror or error}", where=str(out)) from error
