"""All of the study: every concept of every drawn domain, then the tricks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import MetricInfo
from casl_bench.records.provenance import package_versions
from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.studies.metric_validity.alternatives import Candidate, candidates
from casl_bench.studies.metric_validity.gaming import (
    Tally,
    play_on_images,
    play_on_rows,
    play_on_toys,
)
from casl_bench.studies.metric_validity.judging import SPLIT, Judge, Renderer, subject_of
from casl_bench.studies.metric_validity.study import IMAGES, STUDY_VERSION, edit_rows
from casl_bench.studies.metric_validity.study_records import (
    EditRow,
    MetricRef,
    StudyHeader,
    StudyRecords,
)
from casl_bench.worlds.domains import DOMAINS
from casl_bench.worlds.synth import synth_world

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
