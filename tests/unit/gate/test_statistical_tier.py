"""Base and head of made-up methods: each change gets the verdict that it deserves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from casl_bench.analysis.analyse import matched_level
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.gate.gate import Scope, gate
from casl_bench.gate.run_side import (
    FitScoreMatrix,
    RunSide,
    from_scale,
    to_scale,
)
from casl_bench.gate.verdict import CellVerdict, Verdict
from casl_bench.results.record import ErrorInfo, RunRecord, SuiteRef
from casl_bench.results.run_folder import CellKey
from tests.support.scored_run import MadeUpMethod

MakeSide = Callable[..., RunSide]
SOUND = MadeUpMethod()
NOISY = MadeUpMethod(fit_sd=0.05)


def verdict(
    make_side: MakeSide, base: MadeUpMethod, head: MadeUpMethod, scope: Scope | None = None,
    **fields: Any,
) -> CellVerdict:  # fmt: skip
    sides = (make_side(n, {"casl": m}, **fields) for n, m in (("base", base), ("head", head)))
    (found,) = gate(*sides, scope or Scope())
    return found


def edited(side: RunSide, change: Callable[[RunRecord], RunRecord]) -> RunSide:
    """The same run with its methods' records changed."""
    edits = {
        name: {c: {k: change(r) for k, r in fits.items()} for c, fits in cells.items()}
        for name, cells in side.edits.items()
    }
    return replace(side, edits=edits)


def test_the_score_matrix_gives_the_records_own_epr_plus(make_side: MakeSide) -> None:
    side = make_side("run", {"casl": SOUND})
    cells = side.edits["made_up", "casl"]
    matrix = FitScoreMatrix.read(side, cells, [0])
    recorded = [matched_level(fits[0]).measurements["epr_plus"].value for fits in cells.values()]
    assert from_scale(matrix.precision)[0] == pytest.approx(recorded, rel=1e-9)


def test_the_same_passes_as_the_same(make_side: MakeSide) -> None:
    found = verdict(make_side, SOUND, SOUND)
    assert (found.verdict, found.reason) == (Verdict.PASS, "the same")
    assert found.base == found.head


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (MadeUpMethod(damage=0.25), "precision fell by 19"),
        (MadeUpMethod(gain=-2.0), "no longer reached on beard, hat"),
        (MadeUpMethod(gain=0.3), "no longer reached on beard, hat"),
        (MadeUpMethod(gain=1.0, damage=0.1), "the same strength has 50.0 % less effect"),
    ],
    ids=["more damage", "wrong sign", "too weak", "half strength"],
)
def test_a_broken_method_fails(make_side: MakeSide, head: MadeUpMethod, reason: str) -> None:
    found = verdict(make_side, SOUND, head)
    assert found.verdict == Verdict.FAIL
    assert reason in found.reason


def test_two_methods_that_reach_nothing_are_no_pass(make_side: MakeSide) -> None:
    weak = MadeUpMethod(gain=0.1)
    found = verdict(make_side, weak, weak)
    assert found.verdict == Verdict.NOT_COMPARABLE
    assert "neither side reaches the effect" in found.reason


def test_a_better_method_is_told(make_side: MakeSide) -> None:
    found = verdict(make_side, SOUND, MadeUpMethod(damage=0.15))
    assert found.verdict == Verdict.IMPROVED
    assert found.head == pytest.approx(4 / 3 * (found.base or 0), rel=0.01)


def test_a_loss_too_small_to_care_passes(make_side: MakeSide) -> None:
    found = verdict(make_side, SOUND, MadeUpMethod(damage=0.2 / 0.97))
    effect = found.effect("precision")
    assert effect is not None and effect.high is not None and effect.high < 0
    assert found.verdict == Verdict.PASS


def test_bounds_of_a_single_fit_are_those_of_the_images(make_side: MakeSide) -> None:
    other = MadeUpMethod(picture_sd=0.5, luck=1)
    found = verdict(make_side, MadeUpMethod(picture_sd=0.5), other)
    effect = found.effect("precision")
    assert effect is not None and effect.varies_by == "images" and effect.n == 32
    assert effect.low is not None and effect.high is not None
    assert 0.05 < effect.high - effect.low < 0.6
    assert found.verdict == Verdict.INCONCLUSIVE


def test_fits_that_differ_are_the_unit(make_side: MakeSide) -> None:
    found = verdict(make_side, NOISY, replace(NOISY, luck=1), fits=5)
    effect = found.effect("precision")
    assert effect is not None and (effect.varies_by, effect.n) == ("fits", 5)
    # Two sides, two concepts: sd of a fit's log ratio is that of one fit on one concept.
    assert effect.low is not None and effect.high is not None
    assert 0.02 < effect.high - effect.low < 0.2
    worse = replace(NOISY, damage=0.2 / 0.8, luck=1)
    assert verdict(make_side, NOISY, worse, fits=5).verdict == Verdict.FAIL


def test_fits_that_are_alike_are_no_sample(make_side: MakeSide) -> None:
    found = verdict(make_side, SOUND, MadeUpMethod(damage=0.25), fits=5)
    effect = found.effect("precision")
    assert effect is not None and effect.varies_by == "images"


@pytest.mark.parametrize("fits", [1, 4])
def test_too_few_fits_settle_nothing(make_side: MakeSide, fits: int) -> None:
    worse = replace(NOISY, damage=0.3, luck=1)
    scope = Scope(stochastic=frozenset({"casl"}))
    found = verdict(make_side, NOISY, worse, scope, fits=fits)
    assert found.verdict == Verdict.INCONCLUSIVE
    assert f"{fits} paired fits of a method whose fits differ, 5 are needed" in found.reason


def test_one_of_five_fits_that_misses_by_chance_is_noise(make_side: MakeSide) -> None:
    base, head = (make_side(n, {"casl": NOISY}, fits=5) for n in ("base", "head"))
    missed = head.edits["made_up", "casl"]["hat"]
    level = matched_level(missed[2]).model_copy(update={"status": "not_reached", "strength": None})
    levels = (missed[2].levels[0], level, missed[2].levels[2])
    missed[2] = missed[2].model_copy(update={"levels": levels})
    stored, key = head.datasets["made_up"].by_place, CellKey.of(missed[2])
    changed = stored[key].record.model_copy(update={"levels": levels})
    stored[key] = replace(stored[key], record=changed)
    (found,) = gate(base, head, Scope())
    assert found.verdict == Verdict.INCONCLUSIVE


def test_an_absent_or_failed_cell_fails(make_side: MakeSide) -> None:
    base = make_side("base", {"casl": SOUND, "asyrp": SOUND})
    head = make_side("head", {"asyrp": SOUND}, concepts=("hat",))
    found = {c.method: c for c in gate(base, head, Scope())}
    assert found["casl"].verdict == found["asyrp"].verdict == Verdict.FAIL
    assert found["casl"].reason == "missing: beard, hat"
    assert found["asyrp"].reason == "missing: beard"

    def fail(record: RunRecord) -> RunRecord:
        error = ErrorInfo(type="InputError", message="no")
        return record.model_copy(update={"status": "failed", "error": error})

    whole = make_side("whole", {"casl": SOUND, "asyrp": SOUND})
    assert {c.reason for c in gate(base, edited(whole, fail), Scope())} == {
        "no longer runs on beard, hat"
    }


def test_a_new_method_is_told_and_what_is_out_of_scope_is_not(make_side: MakeSide) -> None:
    base = make_side("base", {"casl": SOUND})
    head = make_side("head", {"casl": SOUND, "mine": SOUND})
    assert [c.verdict for c in gate(base, head, Scope())] == [Verdict.PASS, Verdict.NEW]
    assert gate(base, head, Scope(methods=frozenset({"asyrp"}))) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("domain_kind", "real", "domain: made up in the base, real in the head"),
        ("dataset_revision", "2", "data set revision"),
        ("suite", SuiteRef(name="made_up", version=2), "suite: made_up v1 in the base"),
        ("seed", 1, "seed"),
        ("method_version", 2, "method version"),
        ("metric_versions", {"epr_plus": 2}, "EPR+ version"),
        ("metric_identities", {"epr_plus": "2"}, "EPR+ definition"),
        ("backbone", "f" * 64, "backbone weights"),
        ("levels", (), "not matched in its effect"),
    ],
)
def test_answers_to_two_questions_are_not_compared(
    make_side: MakeSide, field: str, value: object, said: str
) -> None:
    base, head = (make_side(n, {"casl": SOUND}) for n in ("base", "head"))
    changed = edited(head, lambda r: r.model_copy(update={field: value}))
    (found,) = gate(base, changed, Scope())
    assert found.verdict == Verdict.NOT_COMPARABLE
    assert said in found.reason


def test_other_images_are_not_compared(make_side: MakeSide) -> None:
    base = make_side("base", {"casl": SOUND})
    (found,) = gate(base, make_side("head", {"casl": SOUND}, images=20), Scope())
    assert (found.verdict, found.reason) == (
        Verdict.NOT_COMPARABLE, "the test images are not the same",
    )  # fmt: skip


def test_a_null_that_changed_makes_the_benchmark_invalid(make_side: MakeSide) -> None:
    base = make_side("base", {"casl": SOUND})
    with pytest.raises(InvalidBenchmarkError, match=r"0\.80 times the base's EPR"):
        gate(base, make_side("head", {"casl": SOUND}, unit=0.8), Scope())


def test_the_scale_is_a_log_ratio_that_knows_the_wrong_way() -> None:
    x = np.array([-5.0, 0.0, 0.5, 1.0, 20.0])
    scale = to_scale(x)
    assert (np.diff(scale) > 0).all() and scale[1] == 0
    assert from_scale(scale) == pytest.approx(x)
    lost = to_scale(0.9 * x) - scale
    assert lost[4] == pytest.approx(math.log(0.9), rel=0.01)
    assert lost[3] == pytest.approx(math.log(0.9), rel=0.1)
