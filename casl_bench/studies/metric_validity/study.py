"""All of the study: every concept of every rendered data set, then the tricks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.results.provenance import package_versions
from casl_bench.runs.names import load_registries
from casl_bench.studies.metric_validity.records import EditRow, StudyHeader, StudyRecords
from casl_bench.studies.metric_validity.scored_edits import (
    IMAGES,
    SPLIT,
    Judge,
    Renderer,
    candidates,
    edit_rows,
    metric_ref,
    subject_of,
)
from casl_bench.studies.metric_validity.tricks import (
    Tally,
    play_on_images,
    play_on_rows,
    play_on_toys,
)

STUDY_VERSION = 1
"""Raise it whenever an edit, its truth or a trick changes."""
COMMAND = "casl-bench study metric-validity"


def make_study(
    datasets: Sequence[str] = tuple(RENDERED),
    *,
    images: int = IMAGES,
    say: Callable[[str], None] = lambda _: None,
) -> StudyRecords:
    """Render, edit and score everything.

    Args:
        datasets: names of rendered data sets.
        images: n per concept.
        say: takes lines of progress.

    Raises:
        InvalidBenchmarkError: if a shipped model is damaged.
        UsageError: there is no such data set.
    """
    load_registries()
    metrics = candidates()
    tally = Tally(metrics)
    rows: list[EditRow] = []
    revisions, scorers = {}, {}
    for name in datasets:
        domain = rendered_domain(name)
        judge, card = Judge(domain), domain.dataset.card
        revisions[name], scorers[name] = card.revision, domain.scorer_hashes
        rows += edit_rows(judge, card.concepts, metrics, images=images, say=say)
        say(f"{name}: tricks")
        drawing = RENDERED[name].drawing
        for concept in card.concepts:
            subject = subject_of(drawing, concept, images)
            play_on_images(tally, judge, subject, Renderer(drawing))
    say("linear tricks")
    play_on_rows(tally, rows)
    play_on_toys(tally)
    refs = tuple(metric_ref(c.metric.info, c.registered) for c in metrics)
    header = StudyHeader(
        version=STUDY_VERSION,
        command=COMMAND,
        images=images,
        split=SPLIT,
        datasets=revisions,
        scorers=scorers,
        packages=package_versions(),
        metrics=refs,
        metrics_of_tricks=(*refs, metric_ref(EPR_PLUS_INFO, registered=True)),
    )
    return StudyRecords(header, tuple(rows), tuple(tally.rows()))
