"""`submit MY_RUN`: one's own methods beside the published ones, without running those again.

All methods edit the same test images, so per-image scores of a run of one method are paired with
the published scores of all others. What can be derived from both is checked; what cannot be seen
is in docs/leaderboards.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from casl_bench.analysis.analyse import DatasetScores, compare_methods, group_cells
from casl_bench.analysis.headline import response_curve
from casl_bench.analysis.measure import numbers_of
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.metrics.edit_scores import Array
from casl_bench.report.columns import Placed, pair_columns, standing_columns, table_of
from casl_bench.report.grouping import Group, Row, RowKey
from casl_bench.report.leaderboard import (
    OF_METHOD,
    added_files,
    published_files,
    rejudged_file,
)
from casl_bench.report.submission import Expected, odd_provenance
from casl_bench.results.published_scores import ENDING, read_published, write_published
from casl_bench.results.record import ALL, RunRecord
from casl_bench.results.rejudged import (
    FILE,
    LOST,
    NOT_REJUDGED,
    Rejudged,
    read_rejudged,
    write_rejudged,
)
from casl_bench.results.stored_cells import StoredCell, read_cells

SAME_LOGITS = 0.02
"""Logits of the same unedited image may differ by this many standard deviations: machines round
differently, and inversion carries it on."""

SAME_CHANGE = 1e-3
"""In standard deviations: published scores are rounded, but no two methods are so alike."""

ExpectedOf = Callable[[Sequence[RunRecord]], Expected]


@dataclass(frozen=True)
class MethodSubmission:
    """What a run adds to published scores.

    Attributes:
        published: the file whose methods it is ranked beside.
        cells: of the run's own methods, with the records of its scorers.
        comparisons: of all methods, published and own, on each data set of the run.
        flags: method → why its rank may not stand.
        rejudged: what fresh classifiers left of them; None where that was not asked for.
    """

    published: Path
    cells: tuple[StoredCell, ...]
    comparisons: tuple[RunRecord, ...]
    flags: Mapping[str, str]
    rejudged: Rejudged | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """The run's own."""
        return tuple(sorted({c.record.method for c in self.cells if c.record.method}))


def published_beside(run: Path, folder: Path) -> Path | None:
    """The published scores of a run's suite and seed, or that a file was added to; None without.

    Raises:
        InvalidBenchmarkError: if something stored is damaged.
    """
    if run.is_file():
        stem, at, _ = run.name.removesuffix(ENDING).partition(OF_METHOD)
        path = run.with_name(f"{stem}{ENDING}")
        return path if at and path.is_file() else None
    own = next(iter(read_cells(run)), None)
    if own is None:
        return None
    for path in published_files(folder):
        first = read_published(path)[0].record
        if (first.suite.name, first.seed) == (own.record.suite.name, own.record.seed):
            return path
    return None


def check_method(
    run: Path, published: Path, expected_of: ExpectedOf | None = None
) -> MethodSubmission:
    """Hold a run's own methods against published scores and rank them beside the published ones.

    Controls of the run and methods that are published already are left out.

    Args:
        run: folder, or a file that was added to the published one.
        published: file of scores.
        expected_of: what is known here of models and methods; None leaves that out.

    Raises:
        UsageError: if the run has no method of its own.
        InvalidBenchmarkError: with the reasons why it may not be ranked.
    """
    files = [path for path in (published, *added_files(published)) if path != run]
    theirs = group_cells(cell for path in files for cell in read_published(path))
    known = {m for d in theirs for m in d.methods}
    cells_of_run = read_published(run) if run.is_file() else read_cells(run)
    mine = [d for d in group_cells(cells_of_run) if set(d.methods) - known]
    if not mine:
        raise UsageError(
            "no method that is not published already", where=str(run),
            hint="give your method a name of its own",
        )  # fmt: skip
    by_name = {d.name: d for d in theirs}
    faults: list[str] = []
    cells: list[StoredCell] = []
    comparisons: list[RunRecord] = []
    for own in mine:
        if own.name not in by_name:
            faults.append(f"there are no published scores of {own.name}")
            continue
        new = [c for c in own.edits if not c.record.control and c.record.method not in known]
        new = [c for c in new if c.record.status == "done"]
        faults += _faults(own, new, by_name[own.name])
        if expected_of is not None:
            faults += _derived(new, expected_of)
        scorer = [c for c in own.cells if c.record.kind == "scorer"]
        cells += [*scorer, *(_kept(c, own) for c in new)]
        together = DatasetScores((*by_name[own.name].cells, *new))
        found = compare_methods([together], ())
        methods = {c.record.method for c in new}
        for record in found:
            assert record.comparison is not None
            if lost := methods & {*record.comparison.incomplete}:
                faults.append(
                    f"{', '.join(sorted(map(str, lost)))}: cells of {own.name} are missing"
                )
        comparisons += found
    if faults:
        shown = "; ".join(dict.fromkeys(faults))
        raise InvalidBenchmarkError(
            f"not to be ranked: {shown}", where=str(run),
            hint="nothing was added; docs/leaderboards.md says what a run must be",
        )  # fmt: skip
    rejudged = read_rejudged(rejudged_file(run) if run.is_file() else run / FILE)
    names = sorted({c.record.method for c in cells if c.record.method})
    flags = {n: (NOT_REJUDGED if rejudged is None else rejudged.flag(n)) for n in names}
    return MethodSubmission(
        published, tuple(cells), tuple(comparisons), {n: f for n, f in flags.items() if f}, rejudged
    )


def _kept(cell: StoredCell, own: DatasetScores) -> StoredCell:
    """A cell as it is published: of the validation images, the headline at each strength."""
    return replace(cell, validation=None, curve=response_curve(cell, own.scales))


def _faults(own: DatasetScores, new: Sequence[StoredCell], theirs: DatasetScores) -> list[str]:
    """What a run and the published scores of the same data set must share."""
    faults = []
    for what in ("suite", "seed", "dataset_revision", "attributes", "scorers", "backbone"):
        a, b = (_first(cells, what) for cells in (own.cells, theirs.cells))
        if a != b:
            faults.append(f"{what} of {own.name} is not that of the published scores")
    images = _unedited(theirs)
    others = [c for c in theirs.edits if not c.record.control]
    for cell in new:
        what = f"{cell.record.method}/{cell.record.concept}"
        faults += [f"{what}: {fault}" for fault in odd_provenance(cell.record.provenance)]
        if cell.record.provenance.git_dirty is not False:
            faults.append(f"{what}: made by code with changes, or of an unknown commit")
        faults += [
            f"{what} has the very scores of {c.record.method}/{c.record.concept}"
            for c in others
            if _same_scores(cell, c, own)
        ]
        faults += [f"{what}: {fault}" for fault in _other_images(cell, images, own)]
        if cell.validation is None and not cell.curve:
            faults.append(f"{what}: its strengths were chosen on no validation image")
    return faults


def _first(cells: Sequence[StoredCell], field: str) -> Any:
    return next((v for c in cells if (v := getattr(c.record, field))), None)


def _unedited(theirs: DatasetScores) -> dict[tuple[str, str], Array]:
    """(classifier, image) → logits of the source and of its reconstruction, [2, A]."""
    found = {}
    for cell in theirs.edits:
        table = cell.scores
        if table is None or cell.record.control:
            continue
        for k, name in enumerate(table.classifiers):
            for i, image in enumerate(table.image_ids):
                rows = np.stack([table.source_logits[k, i], table.reconstruction_logits[k, i]])
                found[name, image] = rows
    return found


def _other_images(
    cell: StoredCell, images: Mapping[tuple[str, str], Array], own: DatasetScores
) -> list[str]:
    """Whether the unedited images are those of the published scores, as all classifiers see them.

    A run on other images, or with another inversion, is no pair of the published ones.
    """
    table = cell.scores
    assert table is not None
    for k, name in enumerate(table.classifiers):
        spread = np.array(own.scales.spreads[name])
        for i, image in enumerate(table.image_ids):
            if (name, image) not in images:
                return [f"image {image} is none of the published scores, by {name}"]
            rows = np.stack([table.source_logits[k, i], table.reconstruction_logits[k, i]])
            apart = float(np.abs((rows - images[name, image]) / spread).max())
            if apart > SAME_LOGITS:
                return [f"{name} sees image {image} otherwise, by {apart:.2g} standard deviations"]
    return []


def _same_scores(cell: StoredCell, other: StoredCell, own: DatasetScores) -> bool:
    """Whether two cells' edits did the same to every logit, to what survives publishing."""
    a, b = cell.scores, other.scores
    assert a is not None and b is not None
    if a.image_ids != b.image_ids or a.classifiers != b.classifiers:
        return False
    spread = np.stack([own.scales.spreads[name] for name in a.classifiers])[:, None]
    change, known = ((t.edit_logits[:, -1] - t.reconstruction_logits) / spread for t in (a, b))
    return bool(np.abs(change - known).max() < SAME_CHANGE)


def _derived(new: Sequence[StoredCell], expected_of: ExpectedOf) -> list[str]:
    """Fields that follow from the method's card and the shipped models."""
    records = [numbers_of(c) for c in new]
    expected = expected_of(records)
    faults: dict[str, None] = {}
    for record in records:
        for name, value in expected.fields_of(record).items():
            if getattr(record, name) != value:
                faults[f"{name} of '{record.method}' is not what it is here"] = None
    return list(faults)


def submission_text(found: MethodSubmission) -> str:
    """The rows and the paired tests of one's own methods, for the terminal."""
    parts = []
    for record in found.comparisons:
        comparison = record.comparison
        assert comparison is not None
        group = Group([record])
        placed = [Placed(Row(group, RowKey(False, s.method)), s) for s in comparison.standings]
        shown = [c for c in standing_columns(comparison) if c.name in _SHOWN]
        own = [p for p in comparison.pairs if {p.a, p.b} & {*found.methods}]
        where = "all data sets" if record.dataset == ALL else record.dataset
        parts += [f"{where}:", table_of(shown, placed), table_of(pair_columns(comparison), own)]
    for method, flag in found.flags.items():
        what = "is not ranked" if flag == LOST else "runs without re-judging (casl-bench rejudge)"
        parts.append(f"{method}: {flag}; it {what}")
    return "\n\n".join(parts)


_SHOWN = ("rank", "method", "significance_letters", "precise_edits", "p_first", "epr_plus")


def add_method(found: MethodSubmission) -> Path:
    """Write the file that adds the methods to the published ones; returns it.

    Raises:
        UsageError: if there is one of the same methods already, or it cannot be written.
    """
    stem = found.published.name.removesuffix(ENDING)
    path = found.published.with_name(f"{stem}{OF_METHOD}{'+'.join(found.methods)}{ENDING}")
    if path.exists():
        raise UsageError("there are scores of this name already", where=str(path))
    write_published(path, found.cells)
    if found.rejudged is not None:
        write_rejudged(rejudged_file(path), found.rejudged)
    return path
