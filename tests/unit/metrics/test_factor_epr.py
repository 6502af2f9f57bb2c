"""EPR of known factors, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import FACTOR_EPR

LOGITS = np.zeros((3, 2))
SCORES = EditScores(
    LOGITS, LOGITS, LOGITS, 0, 1, np.ones(2),
    factor_target=np.array([2.0, 1.0, -0.6]), factor_others=np.array([0.2, 0.3, 0.1]),
)  # fmt: skip


def test_hand_worked_example() -> None:
    assert FACTOR_EPR.value(SCORES) == pytest.approx(0.8 / 0.2)
    assert FACTOR_EPR.value(replace(SCORES, sign=-1)) == pytest.approx(-0.8 / 0.2)


def test_the_target_alone_is_undefined_and_no_change_is_zero() -> None:
    alone = replace(SCORES, factor_others=np.zeros(3))
    assert FACTOR_EPR.value(alone) is None and "divide by" in str(FACTOR_EPR.undefined(alone))
    assert FACTOR_EPR.value(replace(alone, factor_target=np.zeros(3))) == 0


@pytest.mark.parametrize("column", ["factor_target", "factor_others"])
def test_without_its_columns_it_is_undefined(column: str) -> None:
    without = replace(SCORES, **{column: None})
    assert FACTOR_EPR.value(without) is None and "no regressor" in str(
        FACTOR_EPR.undefined(without)
    )


def test_negative_collateral_is_refused() -> None:
    with pytest.raises(InputError, match="never negative"):
        replace(SCORES, factor_others=np.array([0.1, -0.1, 0.0]))
