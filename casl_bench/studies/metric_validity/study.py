"""All of the study: every concept of every drawn domain, then the tricks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from casl_bench.domains.dataset import Concept
from casl_bench.domains.rendered import DOMAINS, domain_named, synth_world
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import MetricInfo
from casl_bench.results.provenance import package_versions
from casl_bench.results.score_table import EditScores
from casl_bench.runs.names import load_entrants
from casl_bench.studies.metric_validity.edits import FAMILIES, GradedEdit, Subject, exact
from casl_bench.studies.metric_validity.scored_edits import (
    SPLIT,
    Candidate,
    EditRow,
    Judge,
    MetricRef,
    Renderer,
    StudyHeader,
    StudyRecords,
    candidates,
    rounded,
    subject_of,
)
from casl_bench.studies.metric_validity.tricks import (
    Tally,
    play_on_images,
    play_on_rows,
    play_on_toys,
)

# How well does each metric rank edits whose precision is known? All concepts, all families.


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


COMMAND = "casl-bench study metric-validity"


def make_study(
    datasets: Sequence[str] = tuple(DOMAINS),
    *,
    images: int = IMAGES,
    say: Callable[[str], None] = lambda _: None,
) -> StudyRecords:
    """Draw, edit and score everything.

    Args:
        datasets: names of drawn domains.
        images: n a concept.
        say: told what is being done.

    Raises:
        InvalidBenchmarkError: if a shipped model is damaged.
        UsageError: there is no such domain.
    """
    load_entrants()
    metrics = candidates()
    tally = Tally(metrics)
    rows: list[EditRow] = []
    revisions, scorers = {}, {}
    for name in datasets:
        world = synth_world(name)
        judge, card = Judge(world), world.dataset.card
        revisions[name], scorers[name] = card.revision, world.scorer_hashes
        rows += edit_rows(judge, card.concepts, metrics, images=images, say=say)
        say(f"{name}: tricks")
        drawing = DOMAINS[name].drawing
        for concept in card.concepts:
            subject = subject_of(drawing, concept, images)
            play_on_images(tally, judge, subject, Renderer(drawing))
    say("linear tricks")
    play_on_rows(tally, rows)
    play_on_toys(tally)
    refs = metric_refs(metrics)
    header = StudyHeader(
        version=STUDY_VERSION,
        command=COMMAND,
        images=images,
        split=SPLIT,
        datasets=revisions,
        scorers=scorers,
        packages=package_versions(),
        metrics=refs,
        metrics_of_tricks=(*refs, _ref(EPR_PLUS_INFO, registered=True)),
    )
    return StudyRecords(header, tuple(rows), tuple(tally.rows()))


def metric_refs(metrics: Sequence[Candidate]) -> tuple[MetricRef, ...]:
    """What records say of the metrics on trial."""
    return tuple(_ref(c.metric.info, c.registered) for c in metrics)


def _ref(info: MetricInfo, registered: bool) -> MetricRef:
    return MetricRef(
        name=info.name,
        version=info.version,
        title=info.title,
        higher_is_better=info.higher_is_better,
        registered=registered,
    )
