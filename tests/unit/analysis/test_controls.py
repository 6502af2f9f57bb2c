"""Each control's bound, with records in which that very fault is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from casl_bench.analysis import controls
from casl_bench.analysis.controls import broken_bounds, check_bounds
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.record import LevelResult, Measurement, Provenance, RunRecord, SuiteRef

PROVENANCE = Provenance(
    package_version="0",
    git_commit=None,
    git_dirty=None,
    packages={},
    device="cpu",
    platform="x",
    started_at="2026-01-01T00:00:00+00:00",
)
SOUND: dict[str, float] = {
    "signed_target_change": 1.0,
    "signed_target_change@second": 1.0,
    "epr_raw": 20.0,
    "epr_std": 1.0,
    "epr_plus": 10.0,
    "flip_rate": 1.0,
    "perceptual_drift": 0.1,
    "identity_drift": 0.1,
}


def measured(n: int = 32, **values: float | None) -> dict[str, Measurement]:
    return {
        name: Measurement.undefined("planted") if v is None else Measurement.of(v, n)
        for name, v in (SOUND | {k.replace("__", "@"): v for k, v in values.items()}).items()
    }


def edit(
    method: str, *, concept: str = "hat", control: bool = True, n: int = 32,
    beside: str | None = None, fit_seed: int = 0, full: dict[str, float | None] | None = None,
    **values: float | None,
) -> RunRecord:  # fmt: skip
    levels = ()
    if full is not None:
        at = measured(n, **full)
        levels = (
            LevelResult(name="full", goal=1, unit="strength", status="reached", strength=1.0,
                        measurements=at),
        )  # fmt: skip
    fields: dict[str, Any] = {
        "kind": "edit",
        "world": "synth",
        "dataset": "faces",
        "dataset_revision": "1",
        "suite": SuiteRef(name="s", version=1),
        "seed": 0,
        "method": method,
        "concept": concept,
        "control": control,
        "beside": beside,
        "fit_seed": fit_seed,
        "measurements": measured(n, **values),
        "levels": levels,
        "full_effect": 2.0,
        "judges": ("first", "second"),
        "provenance": PROVENANCE,
    }
    return RunRecord(**fields)


def sound(concept: str) -> list[RunRecord]:
    """What a run of working controls and one entrant leaves."""
    at = {"concept": concept}
    return [
        edit("identity", signed_target_change=0.0, epr_raw=None, epr_plus=None, **at),
        edit("oracle", full={"epr_raw": 40.0}, epr_plus=40.0, **at),
        *(edit("random_direction", fit_seed=k, epr_std=0.8 + 0.2 * k, **at) for k in range(3)),
        edit("random_rotation", beside="casl", flip_rate=0.1, **at),
        edit("shuffled", signed_target_change=0.01, epr_plus=0.02, **at),
        edit("inverted", signed_target_change=-2.0, epr_plus=-40.0, epr_raw=40.0, **at),
        edit("destroy", perceptual_drift=1.2, identity_drift=0.9, **at),
        edit("pixel_attack", full={"epr_raw": 90.0, "signed_target_change__second": 0.1}, **at),
        edit("casl", control=False, **at),
    ]


def with_fault(method: str, **values: Any) -> list[RunRecord]:
    """The sound run with every record of a method replaced."""
    kept = [r for c in ("hat", "beard") for r in sound(c) if r.method != method]
    return kept + [edit(method, concept=c, **values) for c in ("hat", "beard")]


def test_a_sound_run_is_valid() -> None:
    assert broken_bounds([*sound("hat"), *sound("beard")]) == []


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "identity moves something": ("identity", {"signed_target_change": 0.01, "epr_raw": None}),
    "identity has an EPR": ("identity", {"signed_target_change": 0.0, "epr_raw": 3.0}),
    "the oracle is not seen": ("oracle", {"full": {"flip_rate": 0.7}, "epr_plus": 40.0}),
    "an entrant beats the oracle": (
        "casl",
        {"control": False, "epr_plus": 80.0},
    ),
    "random edits flip as the oracle does": ("random_rotation", {"beside": "casl"}),
    "another concept's edit moves the target": (
        "shuffled",
        {"signed_target_change": 1.0, "epr_plus": 0.1},
    ),
    "another concept's edit is precise": (
        "shuffled",
        {"signed_target_change": 0.01, "epr_plus": 5.0},
    ),
    "the metric is blind to direction": (
        "inverted",
        {"signed_target_change": -2.0, "epr_plus": 40.0, "epr_raw": 40.0},
    ),
    "the wrong way is the right one": (
        "inverted",
        {"signed_target_change": 2.0, "epr_plus": -40.0, "epr_raw": 40.0},
    ),
    "raw EPR knows the direction": (
        "inverted",
        {"signed_target_change": -2.0, "epr_plus": -40.0, "epr_raw": 1.0},
    ),
    "a ruined picture passes": ("destroy", {"perceptual_drift": 0.2, "identity_drift": 0.9}),
    "a lost identity passes": ("destroy", {"perceptual_drift": 1.2, "identity_drift": 0.2}),
    "the attack does not win": (
        "pixel_attack",
        {"full": {"epr_raw": 2.0, "signed_target_change__second": 0.1}},
    ),
    "the attack fools every classifier": (
        "pixel_attack",
        {"full": {"epr_raw": 90.0, "signed_target_change__second": 0.9}},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_breaks_the_bound_of_its_control(fault: str) -> None:
    method, values = FAULTS[fault]
    faults = broken_bounds(with_fault(method, **values))
    # Nothing but this bound breaks; that of no edit is told by concept.
    assert 1 <= len(faults) <= (2 if method == "identity" else 1)
    assert all((f"'{method}'" if method != "oracle" else "the oracle flips") in f for f in faults)


def test_a_draw_that_knows_the_concept_is_found() -> None:
    records = [r for c in ("hat", "beard") for r in sound(c)]
    skilled = [
        r.model_copy(update={"measurements": measured(epr_std=9.0)})
        if r.method == "random_direction" and r.fit_seed == 1
        else r
        for r in records
    ]
    assert "draw 1 of 'random_direction'" in " ".join(broken_bounds(skilled))


@pytest.mark.parametrize(("flip_rate", "n", "broken"), [(0.75, 8, False), (0.75, 100, True)])
def test_an_oracle_is_refused_where_its_flips_are_shown_to_be_few(
    flip_rate: float, n: int, broken: bool
) -> None:
    assert bool(broken_bounds([edit("oracle", n=n, full={"flip_rate": flip_rate})])) is broken


def test_flips_are_pooled_over_concepts() -> None:
    few = [edit("oracle", n=20, concept=str(c), full={"flip_rate": 0.7}) for c in range(8)]
    assert broken_bounds(few)
    assert not broken_bounds(
        [edit("oracle", n=2, full={"flip_rate": 0.5}), edit("oracle", n=30, concept="b", full={})]
    )


def test_a_control_that_was_not_run_says_nothing() -> None:
    assert broken_bounds([r for r in sound("hat") if not r.control]) == []


def test_each_run_among_the_records_is_checked_by_itself(tmp_path: Path) -> None:
    other = [r.model_copy(update={"dataset": "dogs"}) for r in with_fault("identity", epr_raw=1.0)]
    check_bounds(sound("hat"), tmp_path)
    with pytest.raises(InvalidBenchmarkError, match="'identity'"):
        check_bounds([*sound("hat"), *other], tmp_path)


def test_a_record_without_what_its_bound_needs_breaks_the_bound() -> None:
    record = edit("inverted")
    left = {n: m for n, m in record.measurements.items() if n != "epr_plus"}
    assert broken_bounds([record.model_copy(update={"measurements": left})]) == [
        "a record of control 'inverted' lacks 'epr_plus'"
    ]


def test_a_fault_of_the_code_is_not_told_as_one_of_the_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faulty(records: object) -> list[str]:
        raise KeyError("hat")

    monkeypatch.setattr(controls, "BOUNDS", [controls.Bound("inverted", "", faulty)])
    with pytest.raises(KeyError, match="hat"):
        broken_bounds([edit("inverted")])
