"""`submit MY_RUN`: one's own methods beside the published ones, without running those again.

All methods edit the same test images, so per-image scores of a run of one method are paired with
the published scores of all others. What can be derived from both is checked; what cannot be seen
is in docs/leaderboards.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path

import numpy as np

from casl_bench.analysis.analyse import DatasetScores, compare_methods, group_cells
from casl_bench.analysis.headline import response, response_curve
from casl_bench.analysis.measure import numbers_of
from casl_bench.core.errors import UsageError
from casl_bench.core.files import safe_name
from casl_bench.metrics.edit_scores import PER_IMAGE
from casl_bench.report.columns import Placed, pair_columns, standing_columns, table_of
from casl_bench.report.grouping import Group, Row, RowKey
from casl_bench.report.leaderboard import (
    OF_METHOD,
    added_files,
    published_files,
    rejudged_file,
)
from casl_bench.report.submission import (
    Expected,
    odd_provenance,
    other_rejudging,
    other_suite,
    refuse,
)
from casl_bench.results.published_scores import ENDING, read_published, write_published
from casl_bench.results.record import ALL, CellRecord, ReferenceScales, RunRecord
from casl_bench.results.rejudged import (
    FILE,
    LOST,
    NOT_REJUDGED,
    Rejudged,
    read_rejudged,
    write_rejudged,
)
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.stored_cells import StoredCell, read_cells

SAME_LOGITS = 0.02
"""Logits of the same unedited image may differ by this many standard deviations: machines round
differently, and inversion carries it on."""

SAME_GOAL = 0.05
"""Relative: the effect of the perfect edit is measured anew, on another machine."""

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
        rejudged: what fresh scorers left of them; None where that was not asked for.
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
    own = next(iter(RecordStore(run)), None)
    if own is None:
        return None
    for path in published_files(folder):
        first = read_published(path)[0].record
        if (first.suite.name, first.seed) == (own.suite.name, own.seed):
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
    taken = {c.record.method for d in theirs for c in d.cells if c.record.control}
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
        faults += [
            f"'{name}' is the name of a control"
            for name in sorted({c.record.method or "" for c in new} & taken)
        ]
        faults += _faults(new, by_name[own.name])
        if expected_of is not None:
            faults += _derived(new, expected_of)
        scorer = [c for c in own.cells if c.record.kind == "scorer"]
        cells += [*scorer, *(_kept(c, by_name[own.name]) for c in new)]
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
    refuse(tuple(dict.fromkeys(faults)), run, "ranked")
    rejudged = read_rejudged(rejudged_file(run) if run.is_file() else run / FILE)
    names = sorted({c.record.method for c in cells if c.record.method})
    if rejudged is not None:
        whole, rejudged = rejudged, rejudged.of(names)
        faults = ["re-judges methods of others"] if run.is_file() and rejudged != whole else []
        refuse(faults + other_rejudging(rejudged, mine, by_name), run, "ranked")
    flags = {n: (NOT_REJUDGED if rejudged is None else rejudged.flag(n)) for n in names}
    return MethodSubmission(
        published, tuple(cells), tuple(comparisons), {n: f for n, f in flags.items() if f}, rejudged
    )


def _kept(cell: StoredCell, theirs: DatasetScores) -> StoredCell:
    """A cell as it is published: of the validation images, the headline at each strength."""
    return replace(cell, validation=None, curve=response_curve(cell, theirs.scales))


_SHARED = ("suite", "seed", "dataset_revision", "attributes", "scorers", "backbone", "attribute")
"""Fields that a cell has in common with the published cells of its concept."""


def _faults(new: Sequence[StoredCell], theirs: DatasetScores) -> list[str]:
    """What is wrong with cells beside the published ones of the same data set."""
    others = [c for c in theirs.edits if not c.record.control]
    by_concept = {c.record.concept: c for c in reversed(others)}
    faults = []
    for cell in new:
        record, what = cell.record, f"{cell.record.method}/{cell.record.concept}"
        faults += [f"{what}: {fault}" for fault in odd_provenance(record.provenance)]
        if record.provenance.git_dirty is not False or not record.provenance.git_commit:
            faults.append(f"{what}: made by code with changes, or of an unknown commit")
        like = by_concept.get(record.concept)
        if like is None:
            faults.append(f"{what}: no published method edits this concept")
            continue
        differ = [f for f in _SHARED if getattr(record, f) != getattr(like.record, f)]
        if {*record.judges} != {*like.record.judges}:
            differ.append("scoring classifiers")
        faults += [f"{f} of {theirs.name} is not that of the published scores" for f in differ]
        faults += [f"{what}: {fault}" for fault in _other_goals(record, others)]
        if not differ:
            faults += [f"{what}: {fault}" for fault in _unpaired(cell, like, theirs.scales)]
            faults += [
                f"{what} has the very scores of {c.record.method}/{c.record.concept}"
                for c in (*theirs.edits, *new)
                if c.record.concept == record.concept
                and c.record.method != record.method
                and _same_scores(cell, c, theirs)
            ]
    fits: dict[str | None, dict[str | None, list[int]]] = {}
    for record in sorted((c.record for c in new), key=lambda r: r.fit_seed):
        fits.setdefault(record.method, {}).setdefault(record.concept, []).append(record.fit_seed)
    for method, own in fits.items():
        if len({*map(tuple, own.values())}) > 1 or any(f != [*range(len(f))] for f in own.values()):
            faults.append(f"{method}: not the same fits, from 0 on, on every concept")
    return faults


def _other_goals(record: CellRecord, others: Sequence[StoredCell]) -> Iterator[str]:
    """Whether effects were asked for that are not those of the published cells."""
    known = {
        (c.record.judges[0], level.name): level
        for c in others
        if c.record.concept == record.concept
        for level in c.record.levels
    }
    for level in record.levels:
        like = known.get((record.judges[0], level.name))
        if like is not None and not (
            like.unit == level.unit and isclose(like.goal, level.goal, rel_tol=SAME_GOAL)
        ):
            yield f"level {level.name} is at {level.goal:g}, published at {like.goal:g}"


def _unpaired(cell: StoredCell, like: StoredCell, scales: ReferenceScales) -> Iterator[str]:
    """Whether the test images are those of the published scores, as all classifiers see them.

    A run on other or fewer images, or with another inversion, is no pair of the published ones, and
    a scorer that is left out lets pass what it would have seen.
    """
    table, theirs = cell.scores, like.scores
    assert table is not None and theirs is not None
    lacking = [n for n in PER_IMAGE if getattr(table, n) is None is not getattr(theirs, n)]
    if lacking:
        yield f"no scores of {', '.join(lacking)}"
    if table.classifiers != theirs.classifiers and {*table.classifiers} != {*theirs.classifiers}:
        yield "scores of other classifiers"
    elif table.image_ids != theirs.image_ids:
        yield (
            f"its {len(table)} test images are not the {len(theirs)} of the published scores, in "
            "their order"
        )
    else:
        order = [theirs.classifiers.index(name) for name in table.classifiers]
        spread = np.stack([scales.spreads[name] for name in table.classifiers])[:, None]
        for known, found in (
            (theirs.source_logits, table.source_logits),
            (theirs.reconstruction_logits, table.reconstruction_logits),
        ):
            apart = np.abs(found - known[order]) / spread
            if apart.max() > SAME_LOGITS:
                k, i, _ = np.unravel_index(apart.argmax(), apart.shape)
                yield (
                    f"{table.classifiers[k]} sees image {table.image_ids[i]} otherwise than "
                    f"published, by {apart.max():.2g} standard deviations"
                )
                return
    if cell.validation is None and not response(cell, scales):
        yield "its strengths were chosen on no validation image"
    if cell.validation is not None and {*cell.validation.image_ids} & {*table.image_ids}:
        yield "its strengths were chosen on test images"


def _same_scores(cell: StoredCell, other: StoredCell, theirs: DatasetScores) -> bool:
    """Whether two cells' edits did the same to every logit, to what survives publishing.

    At any strength of either: an edit that is copied from a control may have another number there.
    What moves nothing is nobody's.
    """
    a, b = cell.scores, other.scores
    assert a is not None and b is not None
    if a.image_ids != b.image_ids or a.classifiers != b.classifiers:
        return False
    spread = np.stack([theirs.scales.spreads[name] for name in a.classifiers])[:, None, None]
    own, known = ((t.edit_logits - t.reconstruction_logits[:, None]) / spread for t in (a, b))
    moved = np.abs(own).max((0, 2, 3)) > SAME_CHANGE
    apart = np.abs(own[:, :, None] - known[:, None]).max((0, 3, 4))
    return bool((apart[moved] < SAME_CHANGE).any())


def _derived(new: Sequence[StoredCell], expected_of: ExpectedOf) -> list[str]:
    """Fields that follow from the method's card and the shipped models."""
    records = [numbers_of(c) for c in new]
    if not records:
        return []
    expected = expected_of(records)
    faults: dict[str, None] = dict.fromkeys(other_suite(records[0].suite, expected))
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
    methods = "+".join(map(safe_name, found.methods))
    path = found.published.with_name(f"{stem}{OF_METHOD}{methods}{ENDING}")
    if path.exists():
        raise UsageError("there are scores of this name already", where=str(path))
    write_published(path, found.cells)
    if found.rejudged is not None:
        write_rejudged(rejudged_file(path), found.rejudged)
    return path
