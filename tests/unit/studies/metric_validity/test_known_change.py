"""The truth of an edit, on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.domains.rendering.renderer import Factors
from casl_bench.studies.metric_validity.edits import KnownChange, known_change


def factors(attributes: list[list[bool]], nuisance: list[list[float]]) -> Factors:
    return Factors(
        np.arange(len(attributes)), np.array(attributes), np.array(nuisance, dtype=np.float32)
    )


BEFORE = factors([[False, False], [False, True]], [[0.25], [0.5]])
TARGET_ON = factors([[True, False], [True, True]], [[0.25], [0.5]])
ALSO_OTHER = factors([[True, True], [True, True]], [[0.25], [0.5]])
ALSO_DRIFT = factors([[True, False], [True, True]], [[0.5], [0.75]])
ONE_WRONG = factors([[True, False], [False, False]], [[0.25], [0.5]])


@pytest.mark.parametrize(
    ("end", "share", "target", "collateral", "precision"),
    [
        (TARGET_ON, 1.0, 2.0, 0.0, 1.0),
        (TARGET_ON, 0.25, 0.5, 0.0, 1.0),
        # The other attribute turned on in one image of two: 2 sd / 2 images.
        (ALSO_OTHER, 1.0, 2.0, 1.0, 2 / 3),
        (ALSO_OTHER, 0.5, 1.0, 0.5, 2 / 3),
        (ALSO_DRIFT, 1.0, 2.0, 0.25 * 12**0.5, 2 / (2 + 0.25 * 12**0.5)),
    ],
)
def test_hand_worked_example(
    end: Factors, share: float, target: float, collateral: float, precision: float
) -> None:
    known = known_change(BEFORE, BEFORE, end, share, 0)
    assert known.target == pytest.approx(target)
    assert known.collateral == pytest.approx(collateral)
    assert known.precision == pytest.approx(precision)


def test_collateral_of_the_start_counts_in_full() -> None:
    other_on = factors([[False, True], [False, True]], [[0.25], [0.5]])
    known = known_change(BEFORE, other_on, ALSO_OTHER, 0.5, 0)
    assert known == KnownChange(target=1.0, effort=1.0, collateral=1.0)


def test_the_wrong_way_is_effort_without_effect() -> None:
    before = factors([[False, False], [True, False]], [[0.25], [0.5]])
    known = known_change(before, before, ONE_WRONG, 1.0, 0)
    assert (known.target, known.effort, known.precision) == (0.0, 2.0, 0.0)


def test_nothing_changed_has_no_precision() -> None:
    with pytest.raises(InputError, match="no precision"):
        _ = known_change(BEFORE, BEFORE, BEFORE, 1.0, 0).precision


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="share"):
        known_change(BEFORE, BEFORE, TARGET_ON, share, 0)


def test_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="same images"):
        known_change(BEFORE, BEFORE, TARGET_ON[:1], 1.0, 0)
