"""Verdicts from bounds and p-values alone."""

from __future__ import annotations

import math

import pytest

from casl_bench.gate.gate import decide
from casl_bench.gate.log_ratio import Measured
from casl_bench.gate.verdict import (
    ALPHA,
    ALPHA_OF_TWO_LOOKS,
    Effect,
    Quantity,
    Verdict,
    exit_code,
)


def effect(
    percent: float, half: float, p: float | None, quantity: Quantity = "precision"
) -> Effect:
    value = math.log1p(percent / 100)
    known = {} if p is None else {
        "low": value - half, "high": value + half, "p": p, "p_better": 1 - p
    }  # fmt: skip
    return Effect(quantity=quantity, log_ratio=value, varies_by="fits", n=5, **known)


def verdicts(*cells: Measured, alpha: float = ALPHA) -> list[Verdict]:
    named = {("faces", f"m{i}"): cell for i, cell in enumerate(cells)}
    return [c.verdict for c in decide(named, alpha)]


@pytest.mark.parametrize(
    ("percent", "half", "p", "expected"),
    [
        (-10, 0.05, 0.001, Verdict.FAIL),
        (-10, 0.12, 0.06, Verdict.INCONCLUSIVE),  # not certain
        (-4.9, 0.01, 0.0001, Verdict.PASS),  # certain, and too small to care
        (-5.1, 0.01, 0.0001, Verdict.FAIL),
        (0, 0.1, 0.5, Verdict.PASS),
        (0, 0.11, 0.5, Verdict.INCONCLUSIVE),
        (8, 0.05, 0.99, Verdict.IMPROVED),
        (4, 0.01, 0.9999, Verdict.PASS),
        (0, 0.0, None, Verdict.INCONCLUSIVE),
    ],
)
def test_margins(percent: float, half: float, p: float | None, expected: Verdict) -> None:
    assert verdicts(Measured(effect(percent, half, p))) == [expected]


def test_many_cells_share_one_chance_of_a_false_alarm() -> None:
    suspect, quiet = Measured(effect(-8, 0.06, 0.02)), Measured(effect(0, 0.05, 0.5))
    assert verdicts(suspect)[0] == Verdict.FAIL
    assert verdicts(suspect, quiet)[0] == Verdict.FAIL
    assert verdicts(suspect, quiet, quiet)[0] == Verdict.INCONCLUSIVE


def test_two_looks_are_each_stricter() -> None:
    suspect = Measured(effect(-8, 0.06, 0.04))
    assert verdicts(suspect) == [Verdict.FAIL]
    assert verdicts(suspect, alpha=ALPHA_OF_TWO_LOOKS) == [Verdict.INCONCLUSIVE]


def test_strength_has_a_margin_of_its_own_and_costs_precision_nothing() -> None:
    def weaker(percent: float, p: float) -> Measured:
        return Measured(effect(0, 0.02, 0.5), effect(percent, 0.1, p, "effect_per_unit_strength"))

    assert verdicts(weaker(-50, 0.001)) == [Verdict.FAIL]
    assert verdicts(weaker(-20, 0.001)) == [Verdict.PASS]
    assert verdicts(weaker(-50, 0.02)) == [Verdict.PASS]
    # With tests of strength in the same family, p = 0.02 of four tests would be 0.08.
    lossy = Measured(effect(-8, 0.06, 0.02), effect(0, 0.05, 0.5, "effect_per_unit_strength"))
    assert verdicts(lossy, weaker(0, 0.5)) == [Verdict.FAIL, Verdict.PASS]


def test_no_number_is_no_pass() -> None:
    assert verdicts(Measured(None, undefined="head")) == [Verdict.FAIL]
    assert verdicts(Measured(None, undefined="base")) == [Verdict.NOT_COMPARABLE]
    assert verdicts(Measured(None, undefined="both")) == [Verdict.NOT_COMPARABLE]
    assert verdicts(Measured(effect(0, 0.01, 0.5), lost=("hat",))) == [Verdict.FAIL]


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([Verdict.PASS, Verdict.IMPROVED, Verdict.NEW], 0),
        ([Verdict.PASS, Verdict.FAIL, Verdict.NOT_COMPARABLE], 1),
        ([Verdict.PASS, Verdict.INCONCLUSIVE], 4),
        ([Verdict.PASS, Verdict.NOT_COMPARABLE], 4),
        ([Verdict.NEW], 4),
        ([], 4),
    ],
)
def test_nothing_measured_is_not_green(found: list[Verdict], code: int) -> None:
    assert exit_code(found) == code
