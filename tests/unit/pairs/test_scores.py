from __future__ import annotations

import math

import numpy as np
import pytest

import casl_bench
from casl_bench.core.errors import InputError
from casl_bench.pairs.scores import PairScores, edit_scores

BASE = np.array([[-1.0, 0.0, 2.0], [1.0, 0.5, -2.0], [-2.0, 1.0, 0.0], [-0.5, -1.0, 1.0]])
EDIT = BASE + np.array([[2.0, 0.1, 0.1], [2.0, 0.1, 0.1], [1.0, 0.1, 0.1], [2.0, 3.0, 0.1]])


def test_epr_is_equation_14() -> None:
    target, others = np.mean([2, 2, 1, 2]), np.mean([[0.1, 0.1]] * 3 + [[3.0, 0.1]])
    assert casl_bench.epr(BASE, EDIT, 0) == pytest.approx(target / others, rel=1e-6)


def test_a_signed_epr_knows_the_direction_and_forgets_the_scale() -> None:
    forward = casl_bench.signed_epr(BASE, EDIT, 0)
    assert forward > 0 > casl_bench.signed_epr(EDIT, BASE, 0, spread=BASE.std(0))
    assert casl_bench.signed_epr(BASE, EDIT, 0, remove=True) == -forward
    scale = np.array([1.0, 7.0, 1.0])
    assert casl_bench.signed_epr(BASE * scale, EDIT * scale, 0) == pytest.approx(forward)
    assert casl_bench.epr(BASE * scale, EDIT * scale, 0) != pytest.approx(
        casl_bench.epr(BASE, EDIT, 0)
    )


def test_flips_and_precise_edits_are_shares_of_those_that_lacked_it() -> None:
    # Images 0, 2 and 3 lack it; 2 does not reach 0, and 3 drags another attribute along.
    assert casl_bench.flip_rate(BASE, EDIT, 0) == pytest.approx(2 / 3)
    assert casl_bench.precise_edit_rate(BASE, EDIT, 0) == pytest.approx(1 / 3)
    assert casl_bench.precise_edit_rate(BASE, EDIT, 0, tolerance=100) == pytest.approx(2 / 3)


def test_a_stranger_is_no_precise_edit() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(-1, 1, (200, 6))
    stranger = rng.normal(0, 1, (200, 6))
    stranger[:, 0] = 5
    assert casl_bench.flip_rate(base, stranger, 0) == 1
    assert casl_bench.precise_edit_rate(base, stranger, 0) < 0.05
    assert casl_bench.precise_edit_rate(base, base, 0) == 0


def test_what_is_undefined_is_no_number() -> None:
    assert math.isnan(casl_bench.epr(BASE[:, :1], EDIT[:, :1], 0))
    assert math.isnan(casl_bench.flip_rate(BASE + 10, EDIT + 10, 0))


@pytest.mark.parametrize(
    ("base", "edit", "target", "said"),
    [
        (BASE[0], EDIT[0], 0, "base logits has shape"),
        (BASE, EDIT[:2], 0, "edit logits has shape"),
        (BASE[:0], EDIT[:0], 0, "at least one image"),
        (BASE, EDIT, 3, "target 3 is not one of 3"),
        (BASE, EDIT * np.nan, 0, "NaN"),
    ],
)
def test_bad_arrays_are_refused(base: object, edit: object, target: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        casl_bench.epr(base, edit, target)  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf")])
def test_a_tolerance_is_a_positive_number(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance"):
        casl_bench.precise_edit_rate(BASE, EDIT, 0, tolerance=tolerance)


def test_the_table_and_the_rows_agree_with_the_functions() -> None:
    ids = ("a", "b", "c", "d")
    found = PairScores(ids, ("x", "y", "z"), edit_scores(BASE, EDIT, 0))
    assert found.target == "x"
    assert found.table.loc["epr_raw", "value"] == casl_bench.epr(BASE, EDIT, 0)
    rows = found.per_image
    assert rows["flipped"].tolist() == [True, False, False, True]
    assert rows["precise"].tolist() == [True, False, False, False]
    assert rows.loc["d", "most_changed"] == "y"
    precise = found.table.loc["precise_edit_rate"]
    assert precise["value"] == pytest.approx(rows["precise"].sum() / rows["lacked_it"].sum())
    assert 0 <= precise["low"] <= precise["value"] <= precise["high"] <= 1
