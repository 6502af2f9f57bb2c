"""More than adding: concepts taken away, and two concepts one after the other.

Of a finished run, with its fits: tables of their own, since neither has the images nor the goal of
the run's edits. A removal is an edit at a negative strength of images that have the concept. Of two
concepts the second is edited into the inverted result of the first, which every method can do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from casl_bench.analysis.analyse import DatasetScores, group_cells
from casl_bench.analysis.headline import response
from casl_bench.analysis.measure import best_strength
from casl_bench.core.errors import InvalidBenchmarkError, UsageError, first_fault
from casl_bench.core.files import write_text
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.domains.dataset import Concept, SupportsOracle
from casl_bench.methods.method import Editor
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.image_similarity import background_change
from casl_bench.metrics.precise_edits import TOLERANCES, image_outcomes
from casl_bench.models.micro_batch import one_thread
from casl_bench.models.scorers import compare
from casl_bench.report.columns import Column, table_of
from casl_bench.report.grouping import Number, mean_of
from casl_bench.results.record import Count, Finite, Frozen
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.stored_cells import read_cells
from casl_bench.runs.artifacts import Artifacts, InvertedSplit
from casl_bench.runs.cell import EditCells
from casl_bench.runs.plan import info_of, open_domains
from casl_bench.runs.progress import SilentProgress, Stopwatch
from casl_bench.runs.run_lock import config_of_run
from casl_bench.runs.scoring import from_8_bits, to_8_bits
from casl_bench.studies import section, write_page

ROWS, PAGE = "more_edits.jsonl", "more_edits.md"
"""Names of the records and of the page."""

Kind = Literal["removal", "pair"]
Say = Callable[[str], None]


class MoreEditsRow(Frozen):
    """One method on one concept taken away, or on two put in.

    Attributes:
        concepts: the one, or both in order.
        strengths: chosen on validation images for a removal, those of the run for a pair.
        n: eligible test images.
        precise: share of precise edits of these, mean over tolerances; `reached` of flips alone.
    """

    kind: Kind
    dataset: str
    method: str
    concepts: tuple[str, ...]
    strengths: tuple[Finite, ...]
    n: Count
    precise: Finite = Field(ge=0, le=1)
    reached: Finite = Field(ge=0, le=1)


@one_thread()
def make_more_edits(
    run: Path,
    out: Path,
    kinds: Sequence[Kind] = ("removal", "pair"),
    *,
    images: int | None = None,
    cache: Path | None = None,
    say: Say = lambda _: None,
) -> list[MoreEditsRow]:
    """Edit with the fits of a run, and keep a row of each method and concept.

    What is there already is not made again.

    Args:
        run: folder of a finished run.
        out: folder of the rows.
        kinds: of edits.
        images: test images of each row; default the suite's.
        cache: of the run; default the user's.
        say: takes lines of progress.

    Raises:
        UsageError: if the run has no method.
    """
    rows = {_key(r): r for r in read_more_edits(out)}
    groups = [d for d in group_cells(read_cells(run)) if d.methods]
    if not groups:
        raise UsageError("no method has run here", where=str(run))
    for dataset in groups:
        maker = _Maker(run, dataset, images, cache)
        for row in maker.rows(kinds, frozenset(rows), say):
            rows[_key(row)] = row
            lines = [json.dumps(r.model_dump(mode="json"), sort_keys=True) for r in rows.values()]
            write_text(out / ROWS, "".join(f"{line}\n" for line in lines))
    return list(rows.values())


def read_more_edits(out: Path) -> list[MoreEditsRow]:
    """Rows that a folder holds. Raises InvalidBenchmarkError where they are damaged."""
    path = out / ROWS
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [MoreEditsRow.model_validate(json.loads(line)) for line in lines]
    except ValidationError as error:
        raise InvalidBenchmarkError(f"no rows: {first_fault(error)}", where=str(path)) from error
    except ValueError as error:
        raise InvalidBenchmarkError("no rows: not JSON", where=str(path)) from error


_Key = tuple[str, str, str, tuple[str, ...]]


def _key(row: MoreEditsRow) -> _Key:
    return row.kind, row.dataset, row.method, row.concepts


@dataclass
class _Maker:
    """Makes the rows of one data set."""

    run: Path
    dataset: DatasetScores
    images: int | None
    cache: Path | None

    def __post_init__(self) -> None:
        methods = tuple(self.dataset.methods)
        config = config_of_run(self.run, (self.dataset.name,), methods, self.cache)
        self.domain = open_domains(config)[self.dataset.name]
        self.artifacts = Artifacts(self.domain, config, SilentProgress())
        self.cells = EditCells(self.artifacts, RecordStore(self.run))
        self.concepts = {c.name: c for c in self.domain.dataset.card.concepts}
        self.count = self.images or config.suite.test_images_per_concept
        self.grid = config.suite.strengths

    def rows(
        self, kinds: Sequence[Kind], done: frozenset[_Key], say: Say
    ) -> Iterator[MoreEditsRow]:
        """All that are not done, method by method."""
        for method, own in self.dataset.methods.items():
            jobs: list[tuple[Kind, tuple[str, ...]]] = []
            if "removal" in kinds and info_of(method).bidirectional:
                jobs += [("removal", (c,)) for c in own]
            if "pair" in kinds:
                jobs += [("pair", two) for two in pairwise(own)]
            for kind, names in jobs:
                if (kind, self.dataset.name, method, names) in done:
                    continue
                say(f"{self.dataset.name}: {method}, {kind} of {' and '.join(names)}")
                make = self._removal if kind == "removal" else self._pair
                row = make(method, names)
                if row is not None:
                    yield row

    def _editor(self, method: str, concept: str) -> Editor:
        return self.cells.fitting.editor(method, self.concepts[concept], Stopwatch())[0]

    def _removal(self, method: str, names: tuple[str, ...]) -> MoreEditsRow | None:
        concept, editor = self.concepts[names[0]], self._editor(method, names[0])
        validation, test = (
            self.artifacts.concept_split(split, concept, count, present=True)
            for split, count in (
                (self.artifacts.validation, self.artifacts.suite.validation_images),
                (self.artifacts.test, self.count),
            )
        )
        if not len(validation.batch) or not len(test.batch):
            return None
        tried = self._outcomes(editor, concept, validation, tuple(-s for s in self.grid))
        best = max(tried, key=lambda s: (tried[s][0], s))
        found, reached, n = self._outcomes(editor, concept, test, (best,))[best]
        return MoreEditsRow(
            kind="removal", dataset=self.dataset.name, method=method, concepts=names,
            strengths=(best,), n=n, precise=found, reached=reached,
        )  # fmt: skip

    def _outcomes(
        self, editor: Editor, concept: Concept, split: InvertedSplit, strengths: tuple[float, ...]
    ) -> dict[float, tuple[float, float, int]]:
        """Strength → precise, reached, eligible images, of the attribute being taken away."""
        edits = self.cells.edit_images(editor, split, strengths, None)
        table, _ = self.cells.scorers.table(concept, split.inversions, edits, strengths)
        scales, found = self.dataset.scales, {}
        for strength in strengths:
            panel = [
                table.at(
                    strength, concept.attribute, np.array(scales.spreads[name]), sign=-1,
                    classifier=name, unrelated_perceptual=scales.unrelated_perceptual,
                    unrelated_identity=scales.unrelated_identity,
                )
                for name in table.classifiers
            ]  # fmt: skip
            found[strength] = _shares([panel])
        return found

    def _pair(self, method: str, names: tuple[str, ...]) -> MoreEditsRow | None:
        first, second = (self.concepts[name] for name in names)
        attributes = self.domain.dataset.card.attributes
        presence = self.artifacts.presence(self.artifacts.test)
        columns = [attributes.index(c.attribute) for c in (first, second)]
        places = (~presence[:, columns].any(1)).nonzero().flatten().tolist()[: self.count]
        if not places:
            return None
        strengths = tuple(self._strength(method, name) for name in names)
        images = self.artifacts.test.inversions.take(places)
        halfway = self._edited(method, names[0], images, strengths[0])
        again = invert(
            self.domain.backbone, images.image_ids, halfway.clamp(-1, 1), self.artifacts.timesteps,
            extrapolate=self.artifacts.suite.extrapolate,
        )  # fmt: skip
        edited = self._edited(method, names[1], again, strengths[1])
        precise, reached, n = _shares(self._pair_panels((first, second), images, edited))
        return MoreEditsRow(
            kind="pair", dataset=self.dataset.name, method=method, concepts=names,
            strengths=strengths, n=n, precise=precise, reached=reached,
        )  # fmt: skip

    def _strength(self, method: str, concept: str) -> float:
        cell = self.dataset.methods[method][concept][0]
        assert cell.scores is not None
        return best_strength(cell.record, cell.scores, response(cell, self.dataset.scales))

    def _edited(self, method: str, concept: str, images: Inversions, strength: float) -> Tensor:
        split = InvertedSplit(self.artifacts.test.batch.take(range(len(images))), images, None)
        editor = self._editor(method, concept)
        return self.cells.edit_images(editor, split, (strength,), None)[0]

    def _pair_panels(
        self, concepts: tuple[Concept, Concept], images: Inversions, edited: Tensor
    ) -> list[list[EditScores]]:
        """A panel for either concept, in which the other's attribute is no bystander."""
        domain, scales = self.domain, self.dataset.scales
        base, after = (from_8_bits(to_8_bits(x)) for x in (images.reconstruction, edited))
        source = from_8_bits(to_8_bits(images.x_0))
        attributes = [c.attribute for c in concepts]
        perceptual, identity = compare(domain.embedder, after[None], base)
        background: Array | None = None
        if isinstance(domain.dataset, SupportsOracle):
            known = [
                (domain.dataset.oracle(images.image_ids, a) - images.x_0).abs() for a in attributes
            ]
            region = torch.maximum(*known).double().numpy()
            background = background_change(after.numpy(), base.numpy(), region)
        worst: Array | None = None
        if domain.factors is not None:
            moved = domain.factors.factors(after) - domain.factors.factors(base)
            worst = domain.factors.worst_change_of(moved, *attributes).double().numpy()
        names = domain.dataset.card.attributes
        panels = []
        for own, other in (attributes, attributes[::-1]):
            keep = [j for j, name in enumerate(names) if name != other]
            panel = []
            for classifier in domain.classifiers:
                logits = [
                    classifier.logits(x).double().numpy()[:, keep] for x in (source, base, after)
                ]
                panel.append(
                    EditScores(
                        source=logits[0],
                        base=logits[1],
                        edit=logits[2],
                        target=[names[j] for j in keep].index(own),
                        sign=1,
                        spread=np.array(scales.spreads[classifier.info.name])[keep],
                        perceptual=perceptual[0].double().numpy(),
                        identity=None if identity is None else identity[0].double().numpy(),
                        background=background,
                        factor_worst=worst,
                        unrelated_perceptual=scales.unrelated_perceptual,
                        unrelated_identity=scales.unrelated_identity,
                    )
                )
            panels.append(panel)
        return panels


def _shares(panels: Sequence[Sequence[EditScores]]) -> tuple[float, float, int]:
    """Precise and reached shares of the images eligible for every target; how many these are."""
    outcomes = [image_outcomes(panel) for panel in panels]
    eligible = np.logical_and.reduce([o.eligible for o in outcomes])
    precise = np.logical_and.reduce([o.precise(TOLERANCES) for o in outcomes])
    flipped = np.logical_and.reduce([o.flipped for o in outcomes]) & eligible
    n = int(eligible.sum())
    if not n:
        return 0.0, 0.0, 0
    return float(precise.mean(0).sum() / n), float(flipped.sum() / n), n


def write_more_edits(out: Path, rows: Sequence[MoreEditsRow]) -> Path:
    """The two tables, as a page beside the rows."""
    return write_page(out / PAGE, more_edits_text(rows), {})


def more_edits_text(rows: Sequence[MoreEditsRow]) -> str:
    """One table for removals, one for pairs: means over concepts or pairs."""
    titles = {
        "removal": ("Removal", "Images that have the concept, edited at a negative strength: share "
                    "whose target goes for every classifier, and nothing else with it."),
        "pair": ("Two concepts", "The second edited into the inverted result of the first: share "
                 "of images in which both come, and nothing else with them."),
    }  # fmt: skip
    parts = ["# More than adding", "Made by `casl-bench study more-edits RUN`, with its fits."]
    for kind, (title, about) in titles.items():
        own = [r for r in rows if r.kind == kind]
        if not own:
            continue
        datasets = sorted({r.dataset for r in own})
        methods = sorted({r.method for r in own})
        columns: list[Column[str]] = [
            Column("method", "method", str, text=True),
            _sum_column(own, "rows", "concepts" if kind == "removal" else "pairs", lambda r: 1),
            _sum_column(own, "n", "images", lambda r: r.n),
        ]
        for field, label in (("precise", "precise"), ("reached", "reached")):
            columns += [_mean_column(own, field, d, f"{label}, {d}") for d in datasets]
            if len(datasets) > 1:
                columns.append(_mean_column(own, field, None, f"{label}, all"))
        parts.append(section(title, about, table_of(columns, methods)))
    return "\n\n".join(parts) + "\n"


def _sum_column(
    rows: Sequence[MoreEditsRow], name: str, label: str, of: Callable[[MoreEditsRow], int]
) -> Column[str]:
    return Column(name, label, lambda method: str(sum(of(r) for r in rows if r.method == method)))


def _mean_column(
    rows: Sequence[MoreEditsRow], field: str, dataset: str | None, label: str
) -> Column[str]:
    def of(method: str) -> Number:
        values = [getattr(r, field) for r in rows if r.method == method
                  and dataset in (None, r.dataset)]  # fmt: skip
        return mean_of(values, (0.0, 1.0)) if values else Number()

    return Column(f"{field}_{dataset or 'all'}", label, of)
