"""The sections of a data set's page, each a function of its records: what there is, or why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from casl_bench.html_report.bounds import Bound
from casl_bench.html_report.charts import probe_chart, standings_chart
from casl_bench.html_report.drift_matrix import Matrix, drift_matrices
from casl_bench.html_report.figures import Drawing, Figures
from casl_bench.html_report.markup import fold_first, to_html, without_heading
from casl_bench.html_report.styles import Style
from casl_bench.records.record import RunRecord
from casl_bench.reports.comparison_tables import comparison_section, level_section
from casl_bench.reports.cost_tables import cost_section
from casl_bench.reports.drift_tables import drift_section
from casl_bench.reports.edit_tables import classifier_section, concept_section, edit_section
from casl_bench.reports.grouping import Group, RowKey
from casl_bench.reports.markdown import escape, table
from casl_bench.reports.model_tables import (
    probe_section,
    reconstruction_section,
    sae_section,
    scorer_section,
)

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
