"""A record says what it means: explicit statuses, no NaN, an id that is its content."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.metrics.metric import Estimate
from casl_bench.results.record import (
    SCHEMA_FILE,
    Comparison,
    CurvePoint,
    ErrorInfo,
    FileRef,
    LevelResult,
    Measurement,
    Pair,
    Provenance,
    RunRecord,
    Standing,
    SuiteRef,
    record_schema,
)

NAN, INF = float("nan"), float("inf")


def provenance(**changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "package_version": "0.1.0",
        "git_commit": None,
        "git_dirty": None,
        "packages": {"python": "3.11.0"},
        "device": "cpu",
        "platform": "Linux x86_64",
        "started_at": "2026-01-01T00:00:00+00:00",
    }
    return Provenance(**fields | changes)


def record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "kind": "edit",
        "domain_kind": "synth",
        "dataset": "rendered_faces",
        "dataset_revision": "1",
        "suite": SuiteRef(name="standard", version=1),
        "seed": 0,
        "method": "casl",
        "method_version": 1,
        "method_config": {"k": 16, "rate": 0.003, "window": [350, 1000]},
        "supervision": "text",
        "concept": "smiling",
        "strength": 1.5,
        "strength_chosen_on": "validation",
        "strengths": (-1.0, 1.5),
        "measurements": {"epr_raw": Measurement.of(2.5, 32, "ratio")},
        "curve": (CurvePoint(strength=1.5, measurements={}),),
        "drift": {"smiling": 1.0, "beard": None},
        "metric_versions": {"epr_raw": 1},
        "attributes": ("smiling", "beard"),
        "scorers": {"cnn": "ab"},
        "backbone": "cd",
        "provenance": provenance(),
    }
    return RunRecord(**fields | changes)


def test_a_record_survives_json_with_its_id() -> None:
    r = record(strength=0.1 + 0.2)
    text = json.dumps(r.to_json(), allow_nan=False)
    again = RunRecord.from_json(json.loads(text))
    assert again == r and again.record_id == r.record_id
    assert json.dumps(again.to_json(), allow_nan=False) == text


def test_provenance_is_no_part_of_the_identity() -> None:
    other = provenance(device="cuda:0", seconds={"fit": 3.0}, batch_size=8, argv=("x",))
    assert record(provenance=other).record_id == record().record_id
    assert record(provenance=other).comparable() == record().comparable()
    assert "provenance" not in record().comparable()


COMPARISON = Comparison(
    level="effect_50", datasets=("faces",), concepts=("faces/hat",), standings=(), pairs=(),
    agreements=(), sensitivity=(),
)  # fmt: skip
CHANGES: dict[str, Any] = {
    "kind": "probe",
    "domain_kind": "real",
    "dataset": "celeba_hq",
    "dataset_revision": "2",
    "suite": SuiteRef(name="standard", version=1, quick=True),
    "seed": 1,
    "method": "asyrp",
    "method_version": 2,
    "method_config": {"k": 17, "rate": 0.003, "window": [350, 1000]},
    "supervision": "none",
    "control": True,
    "beside": "asyrp",
    "concept": "beard",
    "attribute": "beard",
    "monotone": False,
    "strength": -1.0,
    "strength_chosen_on": "given",
    "strengths": (1.5,),
    "measurements": {"epr_raw": Measurement.of(2.5, 33, "ratio")},
    "levels": (LevelResult(name="effect_50", goal=1, unit="sd", status="not_reached"),),
    "full_effect": 1.5,
    "curve": (),
    "curve_on": "validation",
    "fit_seed": 1,
    "judges": ("cnn",),
    "guided_by": ("cnn",),
    "metric_identities": {"epr_raw": "ab"},
    "comparison": COMPARISON,
    "drift": {"smiling": 1.0, "beard": 0.0},
    "drift_margin": {"smiling": 0.5},
    "metric_versions": {"epr_raw": 2},
    "attributes": ("beard", "smiling"),
    "scorers": {"cnn": "ac"},
    "backbone": None,
    "artifacts": {"sae": "ef"},
    "cost": {"parameters": 1, "unet_calls": 0.5},
    "scores": FileRef(file="scores.csv", sha256="a" * 64, rows=1),
    "images": FileRef(file="images.npz", sha256="b" * 64),
    "flags": ("quick",),
}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_any_other_field_changes_the_id(field: str) -> None:
    assert record(**{field: CHANGES[field]}).record_id != record().record_id


def test_every_field_is_covered_by_the_test_above() -> None:
    special = {"schema_version", "status", "error", "provenance"}
    assert set(CHANGES) | special == set(RunRecord.model_fields)
    failed = record(status="failed", error=ErrorInfo(type="E", message="m"))
    assert failed.record_id != record().record_id


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_nothing_holds_nan_or_infinity(bad: float) -> None:
    for make in (
        lambda: Measurement.of(bad, 1),
        lambda: Measurement(status="ok", value=1.0, low=bad, high=2.0),
        lambda: record(strength=bad),
        lambda: record(strengths=(bad,)),
        lambda: record(drift={"a": bad}),
        lambda: record(method_config={"a": [bad]}),
        lambda: CurvePoint(strength=bad, measurements={}),
        lambda: provenance(seconds={"fit": bad}),
    ):
        with pytest.raises(ValueError):  # pydantic's, or json's
            make()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "ok"},
        {"status": "ok", "value": 1.0, "reason": "why"},
        {"status": "undefined"},
        {"status": "undefined", "value": 1.0, "reason": "why"},
        {"status": "missing", "value": 0.0},
        {"status": "ok", "value": 1.0, "low": 0.0},
        {"status": "ok", "value": 1.0, "low": 2.0, "high": 1.0},
        {"status": "ok", "value": 1.0, "level": 1.0},
        {"status": "ok", "value": 1.0, "n": -1},
        {"status": "fine", "value": 1.0},
        {"status": "ok", "value": 1.0, "extra": 1},
    ],
)
def test_a_measurement_is_consistent(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Measurement(**fields)


def test_estimates_become_measurements() -> None:
    ok = Measurement.from_estimate(Estimate(1.0, 32, 0.5, 2.0), "ratio")
    assert (ok.status, ok.value, ok.low, ok.high, ok.n, ok.unit) == (
        "ok",
        1.0,
        0.5,
        2.0,
        32,
        "ratio",
    )
    none = Measurement.from_estimate(Estimate(None, 32, reason="below the noise floor"))
    assert (none.status, none.value, none.reason) == ("undefined", None, "below the noise floor")
    assert Measurement.missing("cell failed").status == "missing"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failed"},
        {"error": ErrorInfo(type="E", message="m")},
        {"method": None},
        {"concept": None},
        {"kind": "sae", "method": None, "beside": "casl"},
        {"strength_chosen_on": None},
        {"flags": ("b", "a")},
        {"flags": ("a", "a")},
        {"scores": {"file": "../x", "sha256": "a" * 64}},
        {"scores": {"file": "x", "sha256": "short"}},
        {"schema_version": 4},
        {"unknown": 1},
        {"supervision": "magic"},
    ],
)
def test_a_record_is_consistent(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(**changes)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record().seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, "changed after it was written"),
        ({"record_id": "0" * 64}, "changed after it was written"),
        (
            {"provenance": provenance(git_commit="a" * 40).model_dump(mode="json")},
            "provenance was changed after it was written",
        ),
        ({"provenance_id": None}, "provenance was changed"),
        ({"strength": 1e200}, "strength: Input should be less than or equal to 1e"),
        ({"seed": 2**64}, "seed: Input should be less than or equal to"),
        ({"seed": "7"}, "seed: Input should be a valid integer"),
        ({"schema_version": 9}, "schema_version"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"measurements": {"a": {"status": "ok", "value": None}}}, "measurements.a"),
    ],
)
def test_an_edited_record_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidBenchmarkError, match=message) as caught:
        RunRecord.from_json(record().to_json() | change, where="x/record.json")
    assert "x/record.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_record_of_before_there_were_ids_of_provenance_is_read() -> None:
    stored = record(schema_version=2).to_json()
    del stored["provenance_id"]
    assert RunRecord.from_json(stored) == record(schema_version=2)


def test_a_comparison_has_every_two_of_its_methods_once() -> None:
    found = Measurement.of(1.0, 3)
    ranks = {"rank_low": 1, "rank_high": 1, "reached": 1, "wrong_way": 0, "cells": 1}
    standings = [
        Standing(method=m, epr_plus=found, epr_plus_here=found, group="a", fit_sd=found, **ranks)
        for m in ("casl", "asyrp")
    ]
    pair = Pair(a="casl", b="asyrp", difference=found, p=None, p_holm=None)
    stored = COMPARISON.model_dump() | {"standings": standings}
    assert Comparison(**stored | {"pairs": (pair,)}).pairs == (pair,)
    for wrong in ((), (pair, pair), (pair.model_copy(update={"b": "h_pca"}),)):
        with pytest.raises(ValidationError, match="every two of its methods"):
            Comparison(**stored | {"pairs": wrong})


def test_what_is_no_object_is_refused() -> None:
    nonsense: list[Any] = [None, [], "record", 1]
    for bad in nonsense:
        with pytest.raises(InvalidBenchmarkError, match="not a record"):
            RunRecord.from_json(bad)


def test_published_schema_is_the_models() -> None:
    """After a change: `python -m casl_bench.results.record`."""
    published = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == record_schema()


def test_published_schema_names_every_stored_field() -> None:
    schema = record_schema()
    assert set(record(drift_margin={"smiling": 0.5}).to_json()) == set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert {"record_id", "kind", "provenance"} <= set(schema["required"])


def test_a_record_without_margins_is_stored_as_before_there_were_any() -> None:
    assert "drift_margin" not in record().to_json()
    again = RunRecord.from_json(record(drift_margin={"smiling": 0.5}).to_json())
    assert again.drift_margin == {"smiling": 0.5}


def test_a_record_of_the_first_version_keeps_its_id_and_its_fields() -> None:
    old = record(schema_version=1)
    stored = old.to_json()
    assert not {"levels", "fit_seed", "comparison"} & set(stored)
    assert RunRecord.from_json(json.loads(json.dumps(stored))) == old
    assert old.record_id != record().record_id


def test_a_level_has_a_strength_where_something_was_reached() -> None:
    with pytest.raises(ValidationError, match="strength"):
        LevelResult(name="effect_50", goal=1, unit="sd", status="reached")
    with pytest.raises(ValidationError, match="strength"):
        LevelResult(name="effect_50", goal=1, unit="sd", status="not_reached", strength=1.0)
