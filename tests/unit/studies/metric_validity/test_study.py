"""The study itself, on few images: what the headline must reach, and what it must not hide."""

from __future__ import annotations

import pytest

from casl_bench.domains.dataset import Concept
from casl_bench.metrics.metric import METRICS
from casl_bench.studies.metric_validity.page import HEADLINE, REQUIRED, REQUIRED_IN
from casl_bench.studies.metric_validity.ranking import COLUMNS, Ranking, ranking
from casl_bench.studies.metric_validity.records import (
    EditRow,
    MetricRef,
    StudyHeader,
    StudyRecords,
)
from casl_bench.studies.metric_validity.scored_edits import (
    MEAN_OF_RATIOS,
    TARGET_MINUS_OTHERS,
    Candidate,
    Judge,
    edit_rows,
    metric_ref,
)

IMAGES = 12


def concepts(judge: Judge, *names: str) -> list[Concept]:
    return [c for c in judge.domain.dataset.card.concepts if c.name in names]


def refs_of(metrics: list[Candidate]) -> tuple[MetricRef, ...]:
    return tuple(metric_ref(c.metric.info, c.registered) for c in metrics)


def as_study(rows: list[EditRow], metrics: list[Candidate]) -> StudyRecords:
    refs = refs_of(metrics)
    header = StudyHeader(
        version=1, command="", images=IMAGES, split="", datasets={}, scorers={}, packages={},
        metrics=refs, metrics_of_tricks=refs,
    )  # fmt: skip
    return StudyRecords(header, tuple(rows), ())


def correlation(study: StudyRecords, metric: str, classifier: str, family: str) -> Ranking:
    return ranking(study, metric, classifier, COLUMNS[family])


def test_the_headline_ranks_by_known_precision(judge: Judge, metrics: list[Candidate]) -> None:
    chosen = concepts(judge, "tongue", "collar")
    rows = edit_rows(judge, chosen, metrics, images=IMAGES, families=(REQUIRED_IN,))
    study = as_study(rows, metrics)
    assert len(study.classifiers) == 2
    for classifier in study.classifiers:
        found = correlation(study, HEADLINE, classifier, REQUIRED_IN)
        assert found.varying == 2 and found.defined == found.edits
        assert found.within is not None and found.within >= REQUIRED


def test_direction_is_seen_by_signed_ratios_alone(judge: Judge, metrics: list[Candidate]) -> None:
    chosen = concepts(judge, "tongue")
    rows = edit_rows(judge, chosen, metrics, images=IMAGES, families=("wrong_way",))
    study = as_study(rows, metrics)
    primary = study.classifiers[0]
    assert correlation(study, HEADLINE, primary, "wrong_way").within == pytest.approx(1.0)
    raw = correlation(study, "epr_raw", primary, "wrong_way").within
    assert raw is None or raw < 0.9
    again = edit_rows(judge, chosen, metrics, images=IMAGES, families=("wrong_way",))
    assert again == rows


def test_every_registered_metric_is_on_trial(metrics: list[Candidate]) -> None:
    names = [m.name for m in refs_of(metrics)]
    assert names[:-2] == METRICS.names() and HEADLINE in names
    assert names[-2:] == [MEAN_OF_RATIOS.info.name, TARGET_MINUS_OTHERS.info.name]
