"""The study itself, on few images: what the headline must reach, and what it must not hide."""

from __future__ import annotations

import pytest

from casl_bench.domains.dataset import Concept
from casl_bench.metrics.metric import METRICS, EditMetric
from casl_bench.studies.metric_validity.page import HEADLINE, REQUIRED, REQUIRED_IN
from casl_bench.studies.metric_validity.records import (
    COLUMNS,
    EditRow,
    MetricRef,
    Ranking,
    StudyHeader,
    StudyRecords,
    ranking,
)
from casl_bench.studies.metric_validity.study import (
    ALTERNATIVES,
    StudyScorers,
    edit_rows,
    metric_ref,
)

IMAGES = 12


def concepts(scorers: StudyScorers, *names: str) -> list[Concept]:
    return [c for c in scorers.domain.dataset.card.concepts if c.name in names]


def refs_of(metrics: list[EditMetric]) -> tuple[MetricRef, ...]:
    return tuple(metric_ref(m.info) for m in metrics)


def as_study(rows: list[EditRow], metrics: list[EditMetric]) -> StudyRecords:
    refs = refs_of(metrics)
    header = StudyHeader(
        version=1, command="", images=IMAGES, split="", datasets={}, scorers={}, packages={},
        metrics=refs, metrics_of_tricks=refs,
    )  # fmt: skip
    return StudyRecords(header, tuple(rows), ())


def correlation(study: StudyRecords, metric: str, classifier: str, family: str) -> Ranking:
    return ranking(study, metric, classifier, COLUMNS[family])


def test_the_headline_ranks_by_known_precision(
    scorers: StudyScorers, metrics: list[EditMetric]
) -> None:
    chosen = concepts(scorers, "tongue", "collar")
    rows = edit_rows(scorers, chosen, metrics, images=IMAGES, families=(REQUIRED_IN,))
    study = as_study(rows, metrics)
    assert len(study.classifiers) == 2
    for classifier in study.classifiers:
        found = correlation(study, HEADLINE, classifier, REQUIRED_IN)
        assert found.varying == 2 and found.defined == found.edits
        assert found.within is not None and found.within >= REQUIRED


def test_direction_is_seen_by_signed_ratios_alone(
    scorers: StudyScorers, metrics: list[EditMetric]
) -> None:
    chosen = concepts(scorers, "tongue")
    rows = edit_rows(scorers, chosen, metrics, images=IMAGES, families=("wrong_way",))
    study = as_study(rows, metrics)
    primary = study.classifiers[0]
    assert correlation(study, HEADLINE, primary, "wrong_way").within == pytest.approx(1.0)
    raw = correlation(study, "epr_raw", primary, "wrong_way").within
    assert raw is None or raw < 0.9
    again = edit_rows(scorers, chosen, metrics, images=IMAGES, families=("wrong_way",))
    assert again == rows


def test_every_registered_metric_is_on_trial(metrics: list[EditMetric]) -> None:
    names = [m.name for m in refs_of(metrics)]
    assert names[:-2] == METRICS.names() and HEADLINE in names
    assert [m.registered for m in refs_of(metrics)][-3:] == [True, False, False]
    assert names[-2:] == [m.info.name for m in ALTERNATIVES]
