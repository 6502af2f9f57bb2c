"""Pictures and curves of every concept of a data set, as far as a run folder keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from casl_bench.cache.store import Cache
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.html_report.curves import concept_curves
from casl_bench.html_report.edit_grid import EditGrid, Kept, edit_grid
from casl_bench.html_report.figures import Drawing, Figures
from casl_bench.html_report.image_changes import logit_spreads
from casl_bench.html_report.inputs import Source
from casl_bench.html_report.sections import Section
from casl_bench.html_report.sprites import Sheet, new_sheet
from casl_bench.html_report.styles import Style, is_first_of_its_kind
from casl_bench.html_report.top_latents import LatentImages, top_latents
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.record import RunRecord
from casl_bench.records.record_store import RecordStore
from casl_bench.reports.grouping import Group, RowKey
from casl_bench.reports.pictures import load_images

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
