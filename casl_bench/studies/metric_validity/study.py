"""How well does each metric rank edits whose precision is known? All concepts, all families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from casl_bench.images.dataset import Concept
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.studies.metric_validity.alternatives import Candidate
from casl_bench.studies.metric_validity.graded_edits import FAMILIES, GradedEdit, Subject, exact
from casl_bench.studies.metric_validity.judging import Judge, Renderer, subject_of
from casl_bench.studies.metric_validity.study_records import EditRow, rounded
from casl_bench.worlds.domains import domain_named

STUDY_VERSION = 1
"""Raise it whenever an edit, its truth or a trick changes."""
IMAGES = 64
"""Images of each concept, of those that lack its attribute and of those that have it."""


@dataclass(frozen=True)
class Measured:
    """An edit with its scores.

    Attributes:
        edit: what was done.
        scores: classifier → scores.
    """

    edit: GradedEdit
    scores: dict[str, EditScores]


def all_edits(subject: Subject, families: Sequence[str] = tuple(FAMILIES)) -> list[GradedEdit]:
    """The exact edit, then the others, family by family."""
    return [exact(subject), *(edit for name in families for edit in FAMILIES[name].make(subject))]


def measure(
    judge: Judge, concept: Concept, renderer: Renderer, edits: Sequence[GradedEdit]
) -> list[Measured]:
    """Draw and score edits; neighbours that edit the same images are scored together."""
    measured = []
    for _, group in groupby(edits, key=lambda e: (e.family, id(e.before))):
        together = list(group)
        before = together[0].before
        drawn = [renderer.draw_edit(edit) for edit in together]
        scores = judge.scores(concept, before, renderer.draw(before), drawn)
        measured += [Measured(e, s) for e, s in zip(together, scores, strict=True)]
    return measured


def edit_rows(
    judge: Judge,
    concepts: Sequence[Concept],
    metrics: Sequence[Candidate],
    *,
    images: int = IMAGES,
    families: Sequence[str] = tuple(FAMILIES),
    say: Callable[[str], None] = lambda _: None,
) -> list[EditRow]:
    """The rows of some concepts of one data set.

    Args:
        judge: of the data set's world.
        concepts: which.
        metrics: on trial.
        images: n a concept.
        families: which.
        say: told of each concept that is begun.
    """
    dataset = judge.world.dataset.card.name
    drawing = domain_named(dataset).drawing
    rows = []
    for concept in concepts:
        say(f"{dataset}: {concept.name}")
        subject = subject_of(drawing, concept, images)
        edits = all_edits(subject, families)
        for found in measure(judge, concept, Renderer(drawing), edits):
            known = found.edit.known
            for classifier, scores in found.scores.items():
                rows.append(
                    EditRow(
                        dataset=dataset,
                        concept=concept.name,
                        family=found.edit.family,
                        other=found.edit.other,
                        level=found.edit.level,
                        classifier=classifier,
                        precision=round(known.precision, 6),
                        collateral=round(known.collateral, 6),
                        values=tuple(rounded(c.metric.value(scores)) for c in metrics),
                    )
                )
    return rows
