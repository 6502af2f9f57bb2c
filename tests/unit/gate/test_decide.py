"""Verdicts from bounds and p-values alone."""

from __future__ import annotations

import math

import pytest

from casl_bench.gate.gate import decide
from casl_bench.gate.log_ratio import LogRatio, Measured
from casl_bench.gate.verdict import ALPHA, ALPHA_OF_TWO_LOOKS, Verdict, exit_code

CELL = ("faces", "casl")


def ratio(percent: float, half: float, p: float | None, quantity: str = "precision") -> LogRatio:
    value = math.log1p(percent / 100)
    bounds = (value - half, value + half) if p is not None else (None, None)
    better = None if p is None else 1 - p
    return LogRatio(quantity, value, *bounds, p, better, "fits", 5)  # type: ignore[arg-type]


def measured(
    precision: LogRatio | None, potency: LogRatio | None = None, **fields: object
) -> Measured:
    known = {"base": 5.0, "head": 5.0, "lost": (), "stochastic": True}
    return Measured(precision, potency, **(known | fields))  # type: ignore[arg-type]


def verdicts(*cells: Measured) -> list[Verdict]:
    named = {("faces", f"m{i}"): cell for i, cell in enumerate(cells)}
    return [c.verdict for c in decide(named, dict.fromkeys(named, (6, 5)))]


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
    assert verdicts(measured(ratio(percent, half, p))) == [expected]


def test_many_cells_share_one_chance_of_a_false_alarm() -> None:
    suspect, quiet = measured(ratio(-8, 0.06, 0.02)), measured(ratio(0, 0.05, 0.5))
    assert verdicts(suspect)[0] == Verdict.FAIL
    assert verdicts(suspect, quiet)[0] == Verdict.FAIL
    assert verdicts(suspect, quiet, quiet)[0] == Verdict.INCONCLUSIVE


def test_who_may_look_twice_is_stricter_each_time() -> None:
    suspect = {CELL: measured(ratio(-8, 0.06, 0.04))}
    for alpha, expected in ((ALPHA, Verdict.FAIL), (ALPHA_OF_TWO_LOOKS, Verdict.INCONCLUSIVE)):
        (found,) = decide(suspect, {CELL: (6, 5)}, alpha)
        assert found.verdict == expected


def test_potency_is_judged_by_its_own_margin_and_takes_nothing_from_precision() -> None:
    def weaker(percent: float, p: float) -> Measured:
        return measured(ratio(0, 0.02, 0.5), ratio(percent, 0.1, p, "potency"))

    assert verdicts(weaker(-50, 0.001)) == [Verdict.FAIL]
    assert verdicts(weaker(-20, 0.001)) == [Verdict.PASS]
    assert verdicts(weaker(-50, 0.02)) == [Verdict.PASS]
    # With potencies in the same family, p = 0.02 of four tests would be 0.08.
    lossy = measured(ratio(-8, 0.06, 0.02), ratio(0, 0.05, 0.5, "potency"))
    assert verdicts(lossy, weaker(0, 0.5)) == [Verdict.FAIL, Verdict.PASS]


def test_no_number_is_no_pass() -> None:
    assert verdicts(measured(None, undefined="head")) == [Verdict.FAIL]
    assert verdicts(measured(None, undefined="base")) == [Verdict.NOT_COMPARABLE]
    assert verdicts(measured(None, undefined="both")) == [Verdict.NOT_COMPARABLE]
    assert verdicts(measured(ratio(0, 0.01, 0.5), lost=("hat",))) == [Verdict.FAIL]


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
