"""Rankings and the verdict on records with a known answer."""

from __future__ import annotations

import pytest

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.studies.metric_validity.records import (
    ALL,
    COLUMNS,
    EditRow,
    MetricRef,
    Ranking,
    StudyHeader,
    StudyRecords,
    rank_correlation,
    ranking,
    verdict,
)

LEVELS = (1.0, 0.8, 0.6, 0.4)


def metric(name: str, higher: bool | None = True) -> MetricRef:
    return MetricRef(name=name, version=1, title=name, higher_is_better=higher, registered=True)


METRICS = (
    metric("good"), metric("cost", False), metric("noise"), metric("rare"), metric("factor_epr")
)  # fmt: skip


def records(concepts: int = 3) -> StudyRecords:
    """`good` and `cost` know the truth, `noise` does not, `rare` speaks of two edits only."""
    rows = []
    for c in range(concepts):
        for k, precision in enumerate(LEVELS):
            values = (
                10 * precision + c, 1 - precision, [1.0, 3.0, 0.0, 2.0][(k + c) % 4],
                precision if k < 2 else None, precision,
            )  # fmt: skip
            rows.append(
                EditRow(
                    dataset="d", concept=f"c{c}", family="one_other" if k else "exact",
                    level=1 - precision, classifier="plain", precision=precision, collateral=1,
                    values=values,
                )
            )  # fmt: skip
    header = StudyHeader(
        version=1, command="c", images=4, split="validation", datasets={}, scorers={}, packages={},
        metrics=METRICS, metrics_of_tricks=METRICS,
    )  # fmt: skip
    return StudyRecords(header, tuple(rows), ())


def rank(name: str) -> Ranking:
    return ranking(records(), name, "plain", COLUMNS["one_other"])


def test_who_knows_the_truth_has_one() -> None:
    assert rank("good").within == rank("cost").within == 1.0
    assert rank("good").varying == 3


def test_levels_of_concepts_count_over_all_of_them() -> None:
    assert rank("cost").over == pytest.approx(1.0)
    assert rank("good").over is not None and 0.5 < rank("good").over < 1.0


def test_what_is_undefined_is_counted() -> None:
    assert (rank("rare").defined, rank("rare").edits) == (6, 12)
    assert rank("rare").within == 1.0


def test_the_verdict_is_for_who_ranks_best_and_speaks_of_all() -> None:
    found = verdict(records(), ALL)
    assert found.metric == "good" and found.scores["good"] == 1.0
    assert set(found.scores) == {"good", "cost", "noise"}
    assert "cost" in found.level and "noise" not in found.level


def test_intervals_are_over_concepts() -> None:
    noise = rank("noise")
    assert noise.interval is not None and noise.within is not None
    assert noise.interval[0] < noise.within < noise.interval[1]
    assert rank("good").interval is None  # all concepts agree
    lone = ranking(records(concepts=1), "noise", "plain", COLUMNS["one_other"])
    assert lone.interval is None and lone.varying == 1


def test_only_what_varies_has_a_correlation() -> None:
    a = [0.1, 3.0, 0.7, 2.0]
    assert rank_correlation(a, [1, 9, 2, 4]) == pytest.approx(1)
    assert rank_correlation(a, [1, 1, 1, 1]) is rank_correlation([1], [2]) is None
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)


def test_no_metric_no_verdict() -> None:
    few = records()
    mute = tuple(row.model_copy(update={"values": (None,) * 5}) for row in few.edits)
    with pytest.raises(InvalidBenchmarkError, match="no metric ranks"):
        verdict(StudyRecords(few.header, mute, ()))
