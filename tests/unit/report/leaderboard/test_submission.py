"""A record file that is not whole, clean and consistent is refused, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from casl_bench.report.submission import Expected, faults_of
from casl_bench.results.record import ErrorInfo, Measurement, RunRecord, SuiteRef

Records = list[RunRecord]
Replaced = Callable[..., Records]


def is_casl(record: RunRecord) -> bool:
    return record.kind == "edit" and record.method == "casl"


def test_a_whole_run_has_no_fault(whole: Records, expected: Expected) -> None:
    assert faults_of(whole, expected) == []


@pytest.mark.parametrize(
    ("leave_out", "reason"),
    [
        (lambda r: is_casl(r) and r.concept == "dome", "missing: rendered_churches/casl/dome"),
        (lambda r: r.method == "oracle" and r.concept == "snow", "oracle/snow"),
        (lambda r: r.method == "random_direction" and r.fit_seed == 1, "random_direction #1"),
        (lambda r: r.kind == "comparison", "rendered_churches/comparison"),
        (lambda r: r.kind == "scorer", "rendered_churches/scorer"),
        (lambda r: r.kind == "edit" and not r.control, "no method but controls"),
        (lambda r: r.concept == "brick", "casl/brick"),
    ],
)
def test_what_is_missing_is_named(
    whole: Records, expected: Expected, leave_out: Callable[[RunRecord], bool], reason: str
) -> None:
    assert reason in "; ".join(faults_of([r for r in whole if not leave_out(r)], expected))


def test_a_control_matched_to_a_method_is_expected(
    whole: Records, expected: Expected, made_up_run: Any, scores: Any
) -> None:
    wanted = dataclasses.replace(expected, beside={"casl": ("random_rotation",)})
    assert "random_rotation matched to casl/brick" in "; ".join(faults_of(whole, wanted))
    complete = made_up_run(scores, beside={"casl": "random_rotation"}).records
    assert faults_of(complete, wanted) == []
    few = dataclasses.replace(wanted, matched_concepts=1)
    assert "casl/dome" not in "; ".join(faults_of(whole, few))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"suite": SuiteRef(name="standard", version=2)}, "of version 2, today it is 3"),
        ({"suite": SuiteRef(name="standard", version=3, quick=True)}, "for trying out"),
        ({"schema_version": 1}, "not of schema 3"),
    ],
)
def test_another_suite_or_schema(
    whole: Records, expected: Expected, replaced: Replaced, changes: Any, reason: str
) -> None:
    (fault,) = faults_of(replaced(whole, lambda r: True, **changes), expected)
    assert reason in fault


def test_records_of_two_runs(whole: Records, expected: Expected, replaced: Replaced) -> None:
    (fault,) = faults_of(replaced(whole, lambda r: r.concept == "snow", seed=1), expected)
    assert fault.startswith("records of several runs") and "seed 1" in fault


def test_a_suite_that_nobody_knows(whole: Records, expected: Expected, replaced: Replaced) -> None:
    unknown = dataclasses.replace(expected, suite_version=None)
    assert faults_of(whole, unknown) == ["there is no suite 'standard'"]


@pytest.mark.parametrize(
    ("dirty", "reason"),
    [(True, "3 records were made by code with changes"), (None, "3 records do")],
)
def test_code_that_is_not_clean(
    whole: Records, expected: Expected, replaced: Replaced, dirty: bool | None, reason: str
) -> None:
    provenance = whole[0].provenance.model_copy(update={"git_dirty": dirty})
    found = faults_of(replaced(whole, is_casl, provenance=provenance), expected)
    assert len(found) == 1 and found[0].startswith(reason)


def test_the_same_cell_twice(whole: Records, expected: Expected) -> None:
    twice = [*whole, next(r for r in whole if is_casl(r))]
    assert "the same cell several times: rendered_churches/casl/brick" in "; ".join(
        faults_of(twice, expected)
    )


def test_nothing_new(whole: Records, expected: Expected) -> None:
    assert faults_of(whole, expected, whole) == ["all records of its methods are published already"]
    only_casl = [r for r in whole if r.method == "casl"]
    assert faults_of(whole, expected, only_casl) == []


def test_published_scores_under_anothers_name(
    whole: Records, expected: Expected, replaced: Replaced
) -> None:
    theirs = replaced(whole, lambda r: r.method == "asyrp", method="h_pca")
    found = faults_of(whole, expected, theirs)
    assert len(found) == 1 and "asyrp/brick and rendered_churches/h_pca/brick" in found[0]


def test_one_methods_scores_under_anothers_name(
    whole: Records, expected: Expected, replaced: Replaced
) -> None:
    scores = next(r.scores for r in whole if is_casl(r))
    stolen = replaced(whole, lambda r: r.method == "asyrp" and r.concept == "brick", scores=scores)
    (fault,) = faults_of(stolen, expected)
    assert "rendered_churches/asyrp/brick and rendered_churches/casl/brick" in fault


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"git_commit": "HEAD"}, "'HEAD' is no commit"),
        ({"started_at": "yesterday"}, "'yesterday' is no time with a time zone"),
        ({"started_at": "2026-01-01T00:00:00"}, "is no time with a time zone"),
        ({"started_at": "2999-01-01T00:00:00+00:00"}, "is yet to come"),
        ({"seconds": {"edit": -1.0}}, "edit took -1 s"),
        ({"fit_seconds": 1e9}, "fit took 1e+09 s"),
        ({"argv": ()}, "no command"),
    ],
)
def test_provenance_that_cannot_be(
    whole: Records, expected: Expected, replaced: Replaced, changes: Any, reason: str
) -> None:
    provenance = whole[0].provenance.model_copy(update=changes)
    (fault,) = faults_of(replaced(whole, is_casl, provenance=provenance), expected)
    assert fault.startswith("provenance cannot be: rendered_churches/casl/") and reason in fault


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scorers": {"classifier": "e" * 64}}, "differ in scorers"),
        ({"attributes": ("brick", "dome")}, "differ in attributes"),
        ({"backbone": "e" * 64}, "differ in backbones"),
        ({"dataset_revision": "r2"}, "in several revisions"),
        ({"method_version": 2}, "method_version of 'casl' is 2, here 1"),
        ({"method_config": {"gain": 2.0}}, "method_config of 'casl' is {'gain': 2.0}, here"),
        ({"supervision": "none"}, "supervision of 'casl' is 'none', here 'text'"),
        ({"flags": ("wrong way",)}, "has the flags ['wrong way'], by its numbers []"),
        ({"guided_by": ("other",)}, "has the flags [], by its numbers ['guided by a scorer']"),
        ({"metric_versions": {"epr_raw": 99}}, "epr_raw is of version 99, here of"),
    ],
)
def test_what_records_must_share(
    whole: Records, expected: Expected, replaced: Replaced, changes: Any, reason: str
) -> None:
    found = faults_of(
        replaced(whole, lambda r: is_casl(r) and r.concept == "snow", **changes), expected
    )
    assert len(found) == 1 and reason in found[0]


def test_metrics_of_two_kinds(whole: Records, expected: Expected, replaced: Replaced) -> None:
    one = replaced(whole, is_casl, metric_identities={"epr_raw": "x"})
    two = replaced(one, lambda r: r.method == "asyrp", metric_identities={"epr_raw": "y"})
    apart = replaced(one, lambda r: r.concept == "snow", metric_identities={"epr_raw": "y"})
    assert faults_of(one, expected) == []
    assert faults_of(apart, expected) == []  # another concept has other others
    assert faults_of(two, expected) == ["records of rendered_churches differ in their metrics"]


def test_a_failed_cell(whole: Records, expected: Expected, replaced: Replaced) -> None:
    failed = replaced(
        whole,
        lambda r: is_casl(r) and r.concept == "snow",
        status="failed",
        error=ErrorInfo(type="RuntimeError", message="out of memory"),
    )
    assert "casl/snow failed: out of memory" in "; ".join(faults_of(failed, expected))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("flip_rate", Measurement.of(1.5, 32, "share"), "flip_rate is 1.5, outside [0, 1]"),
        ("identity", Measurement.of(-1.1, 32, "cosine"), "outside [-1, 1]"),
        ("epr_raw", Measurement.of(-2.0, 32, "ratio"), "epr_raw is -2"),
        ("perceptual", Measurement.of(-0.1, 32, "distance"), "perceptual is -0.1"),
        ("signed_target_change", Measurement.of(200.0, 32, "sd"), "is 200, outside"),
        ("flip_rate", Measurement.of(0.5, 33, "share"), "of 33 images, the suite has 32"),
        ("flip_rate", Measurement.of(0.5, 0, "share"), "is of no image"),
        ("flip_rate", Measurement.of(1.5, 32), "flip_rate is in '', not in 'share'"),
    ],
)
def test_values_that_cannot_be(
    whole: Records,
    expected: Expected,
    replaced: Replaced,
    name: str,
    value: Measurement,
    reason: str,
) -> None:
    cell = next(r for r in whole if is_casl(r))
    changed = {**cell.measurements, name: value}
    found = faults_of(replaced(whole, lambda r: r is cell, measurements=changed), expected)
    (fault,) = (fault for fault in found if "has the flags" not in fault)
    assert reason in fault


def test_a_drift_that_cannot_be(whole: Records, expected: Expected, replaced: Replaced) -> None:
    (fault,) = faults_of(
        replaced(whole, lambda r: is_casl(r) and r.concept == "snow", drift={"brick": -101.0}),
        expected,
    )
    assert "shift of brick is -101" in fault


# The comparison ---------------------------------------------------------------------------------


def with_comparison(records: Records, change: Callable[[Any], Any]) -> Records:
    def changed(record: RunRecord) -> RunRecord:
        if record.comparison is None:
            return record
        stored = record.comparison.model_dump(mode="json")
        change(stored)
        comparison = type(record.comparison).model_validate(stored)
        return record.model_copy(update={"comparison": comparison})

    return [changed(r) for r in records]


def better(stored: Any) -> None:
    stored["standings"][1]["epr_plus"] |= {"value": 9.0, "high": 10.0}


def further(stored: Any) -> None:
    stored["pairs"][0]["difference"]["value"] = -0.5


def first(stored: Any) -> None:
    stored["standings"][1] |= {"rank_low": 1}


def lettered(stored: Any) -> None:
    stored["standings"][1] |= {"group": "a"}


def whole_of_it(stored: Any) -> None:
    stored["standings"][1] |= {"reached": 3}


def surer(stored: Any) -> None:
    stored["pairs"][0] |= {"p_holm": 0.5}


def fewer(stored: Any) -> None:
    stored["concepts"] = stored["concepts"][:2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (better, "EPR+ of 'asyrp' is 9.0, of its cells 1.28"),
        (further, "the difference of 'casl' and 'asyrp' is not that of their cells"),
        (first, "'asyrp' has ranks 1 to 2 (b), its pairs leave open 2 to 2 (b)"),
        (lettered, "'asyrp' has ranks 2 to 2 (a), its pairs leave open 2 to 2 (b)"),
        (whole_of_it, "'asyrp' reached 2, 0 the wrong way, of 3 cells"),
        (surer, "is not Holm's"),
        (fewer, "is not of all methods and concepts"),
    ],
)
def test_a_comparison_that_its_cells_do_not_give(
    whole: Records, expected: Expected, change: Callable[[Any], None], reason: str
) -> None:
    assert reason in "; ".join(faults_of(with_comparison(whole, change), expected))


def test_a_cell_that_its_comparison_does_not_know(
    whole: Records, expected: Expected, made_up_run: Any, scores: Any
) -> None:
    raised = {**scores, "asyrp": scores["asyrp"] | {"snow": 20.0}}
    cell = made_up_run(raised).edit("rendered_churches", "asyrp", "snow")
    records = [cell if (r.method, r.concept) == ("asyrp", "snow") else r for r in whole]
    assert any("EPR+ of 'asyrp'" in fault for fault in faults_of(records, expected))
