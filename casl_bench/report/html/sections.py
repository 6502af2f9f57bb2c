"""The sections of a data set's page: tables, figures, controls, pictures; or why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from casl_bench.analysis.controls import BOUNDS
from casl_bench.report.grouping import Group, RowKey
from casl_bench.report.html.edit_grid import EditGrid, Floats, Kept, Sheet, Sheets, edit_grid
from casl_bench.report.html.figures import (
    Drawing,
    Figures,
    Matrix,
    Style,
    concept_curves,
    probe_chart,
    shift_matrices,
    standings_chart,
)
from casl_bench.report.html.from_markdown import fold_first, to_html, without_heading
from casl_bench.report.markdown import escape
from casl_bench.report.models import (
    off_target_section,
    probe_section,
    probes_by_method,
    reconstruction_section,
    sae_section,
    scorer_section,
)
from casl_bench.report.pictures import load_images
from casl_bench.report.tables import (
    classifier_section,
    comparison_section,
    concept_section,
    cost_section,
    edit_section,
    failure_section,
    level_section,
    trial_table,
)
from casl_bench.results.edited_images import LatentImages, latents_from_bytes
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore

# Controls and what each must show: whether a data set's numbers may be believed.


@dataclass(frozen=True)
class Bound:
    """A control, what it must show, and what does not hold, in sentences."""

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


def bounds_of(records: Sequence[RunRecord]) -> list[Bound]:
    """Every control's bound, on the records of one data set."""
    done = {r.method for r in records if r.kind == "edit" and r.control and r.status == "done"}
    return [Bound(b.control, b.must, tuple(b.faults(records)), b.control in done) for b in BOUNDS]


# The sections of a data set's page, each a function of its records: what there is, or why not.

_NO_COMPARISON = (
    "Not compared: no cell of these records compares methods at equal effect (a run writes one "
    "once every method has run every concept)."
)


@dataclass
class Section:
    """A part of a page; the `macro` of the template shows `content`."""

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
        "What must hold if metrics, scorers and runner work. A broken bound makes all numbers of "
        "the data set meaningless. What the controls measured is listed under Edits."
    )
    return Section("controls", "Controls and their bounds", to_html(about), bounds=bounds)


def ranking_sections(
    group: Group, styles: Mapping[RowKey, Style], figures: Figures
) -> list[Section]:
    """Standings with their figure, then the means of all measurements."""
    found, drawn = group.comparison, []
    text = to_html(_NO_COMPARISON)
    if found is not None:
        standings = _html(comparison_section(group), "")
        text = fold_first(standings, "How to read this")
        if found.standings:
            drawn.append(standings_chart(found, group.first.dataset, styles, figures))
    edits = _html(edit_section(group), "No edit is among these records.")
    return [
        Section("standings", "Leaderboard: methods compared", text, drawn),
        Section("edits", "Edits: means over concepts", edits),
    ]


def trial_part(group: Group) -> Section:
    """Of a run for trying out: which cells are done."""
    return Section("ran", "What ran", to_html(trial_table(group)))


def shift_part(group: Group) -> Section:
    """Mean shift by attribute, then concepts × attributes of each method."""
    # The report has its own, shaded matrices in the place of the folded ones.
    summary, _, _ = off_target_section(group).partition("<details>")
    text = _html(summary, "No record holds what else changed.")
    return Section("shift", "Off-target shift", text, matrices=shift_matrices(group))


def detail_sections(group: Group) -> list[Section]:
    """The numbers behind the means."""
    found = [
        Section("by-concept", "Edits by concept", _html(concept_section(group), "")),
        Section("levels", "Strengths at equal effect", _html(level_section(group), "")),
        Section("by-classifier", "Edits by classifier", _html(classifier_section(group), "")),
    ]
    return [section for section in found if section.text]


def model_sections(group: Group, figures: Figures) -> list[Section]:
    """Reconstruction, probe, SAE and scorers."""
    drawn = [
        probe_chart(own, group.first.dataset, method, figures)
        for method, own in probes_by_method(group).items()
    ]
    reconstruction = _html(
        reconstruction_section(group), "No reconstruction is among these records."
    )
    probe = _html(probe_section(group), "No probe is among these records.")
    sae = _html(sae_section(group), "No SAE is among these records.")
    scorers = _html(scorer_section(group), "No scorer was validated in these records.")
    return [
        Section("reconstruction", "Reconstruction without an edit", reconstruction),
        Section("probe", "Probe accuracy by k", probe, [d for d in drawn if d is not None]),
        Section("sae", "SAE quality", sae),
        Section("scorers", "Scorer validation", scorers),
    ]


def closing_sections(group: Group, source: str) -> list[Section]:
    """Cost, failures, and where all of it comes from."""
    cost = _html(cost_section(group), "No edit is among these records.")
    failed = _html(failure_section(group), "")
    return [
        *([] if group.is_trial else [Section("cost", "Cost", cost)]),
        *([Section("failed", "Failed or skipped", failed)] if failed else []),
        Section("origin", "Where this comes from", to_html(_origin(group, source))),
    ]


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
    """A concept in a page; no grid where no pictures are kept."""

    name: str
    grid: EditGrid | None
    figures: Sequence[Drawing]
    no_figures: str = ""  # why there are none


@dataclass(frozen=True)
class LatentPart:
    """A latent in a page, with (picture, dimmed picture) of each image as CSS."""

    found: LatentImages
    styles: tuple[tuple[str, str], ...]


def edits_section(
    group: Group,
    store: RecordStore | None,
    styles: Mapping[RowKey, Style],
    figures: Figures,
    sheets: Sheets,
) -> Section:
    """One part per concept: its grid of pictures and its curves; of a trial the pictures alone."""
    # Without the unit of a change no number stands under a picture.
    spreads = {} if group.is_trial else logit_spreads(group)
    parts = []
    for concept in group.concepts:
        own, grid = _pictured(group, concept, styles), None
        if store is not None and own:
            sheet = sheets.new(f"{group.records[0].dataset}-{concept}")
            kept = {key: Kept(r, load_images(store, r), store.scores(r)) for key, r in own.items()}
            grid = edit_grid(kept, styles, spreads, sheet)
            sheets.write(sheet)
        if group.is_trial:
            parts.append(ConceptPart(concept, grid, ()))
            continue
        rows = {key: style for key, style in styles.items() if has_curve(key)}
        curves = concept_curves(group, concept, rows, figures)
        parts.append(ConceptPart(concept, grid, curves, "" if curves else _NO_CURVES))
    if group.is_trial:
        return Section("pictures", "Pictures by concept", macro="concepts", content=parts)
    return Section(
        "pictures", "Pictures and curves by concept", to_html(_CHANGES), macro="concepts",
        content=parts,
    )  # fmt: skip


_CHANGES = (
    "Under each picture: the change of the target in this image. Hover, tap, or use the arrow keys "
    "to see at the foot of the window what else changed. Changes are against the reconstruction, "
    "in σ of each attribute's logit."
)
_NO_CURVES = "No curves: no record of this concept has measurements at several strengths."


def logit_spreads(group: Group) -> dict[str, Floats]:
    """Classifier → [A] standard deviation of its logits over real images, of the scorers' record.

    In the order of the record's attributes, which is that of a score table's columns.
    """
    found: dict[str, dict[str, float]] = {}
    attributes: Sequence[str] = ()
    for record in group.of_kind("scorer"):
        attributes = record.attributes
        for name, m in record.measurements.items():
            left, _, attribute = name.partition("/")
            if attribute and left.endswith(".spread") and m.value is not None:
                found.setdefault(left.removesuffix(".spread"), {})[attribute] = m.value
    return {
        classifier: np.array([by.get(attribute, np.nan) for attribute in attributes])
        for classifier, by in found.items()
    }


def latents_section(group: Group, store: RecordStore | None, sheets: Sheets) -> Section:
    """Images that activate the best aligned latents of each concept, or why there are none."""
    section = Section("latents", "What the aligned latents respond to", macro="latents")
    probes = [r for r in group.of_kind("probe") if r.images is not None]
    if store is None:
        section.content = "No images of latents: they are kept in a run folder, not in its records."
        return section
    if not probes:
        section.content = (
            "No images of latents: no method of this run ranks any, or an older version ran it."
        )
        return section
    shown: dict[str, tuple[Sheet, list[LatentPart]]] = {}
    for record in probes:
        assert record.images is not None
        path = store.folder(CellKey.of(record)) / record.images.file
        sheet = sheets.new(f"{record.dataset}-{record.concept}-{record.method}-latents")
        numbers = [
            (latent, [(sheet.add(p), sheet.add(latent.dimmed(i)))
                      for i, p in enumerate(latent.pictures)])
            for latent in latents_from_bytes(path.read_bytes(), where=str(path))
        ]  # fmt: skip
        parts = [
            LatentPart(latent, tuple((sheet.style(a), sheet.style(b)) for a, b in own))
            for latent, own in numbers
        ]
        shown[f"{record.concept}, ranked by {record.method}"] = (sheet, parts)
        sheets.write(sheet)
    section.content = shown
    return section


def _pictured(
    group: Group, concept: str, styles: Mapping[RowKey, Style]
) -> dict[RowKey, RunRecord]:
    """Row → its record with pictures; repetitions of a control are left out."""
    found = {}
    for key in styles:
        record = group.done(key).get(concept) if key in group.edits else None
        if record is not None and record.images is not None and is_shown(key):
            found[key] = record
    return found


def is_shown(key: RowKey) -> bool:
    """Whether a row has pictures of its own in the grids."""
    return key.is_first_of_its_kind and not (key.control and key.method in _SELF_EVIDENT)


def has_curve(key: RowKey) -> bool:
    """Whether a row is in the figures of curves."""
    return key.is_first_of_its_kind and not (key.control and key.method not in _WITH_CURVES)
