"""The gate of a model of photographs: which figures pass it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from casl_bench.studies.photographs import PhotographGate

PASSES = PhotographGate(
    "celeba", "1", "0", "judge", 64, 27.0, 38.0, {"blond_hair": 0.5, "male": 0.6, "smiling": 0.3}
)


@pytest.mark.parametrize(
    ("gate", "holds"),
    [
        (PASSES, True),
        (replace(PASSES, plain_db=22.2), False),
        (replace(PASSES, plain_db=22.2, extrapolated_db=40.0), True),
        (replace(PASSES, flips={**PASSES.flips, "smiling": 0.29}), False),
        (replace(PASSES, flips={**PASSES.flips, "male": 0.49}), False),
    ],
)
def test_either_inversion_and_every_direction(gate: PhotographGate, holds: bool) -> None:
    assert gate.holds is holds and gate.to_json()["holds"] is holds
    assert ("The gate holds." in gate.to_markdown()) is holds
