from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from casl_bench.runs.validity import broken_bounds


def edit(method: str, flip_rate: float, n: int, **fields: Any) -> Any:
    measured = {
        "flip_rate": SimpleNamespace(value=flip_rate, n=n),
        "signed_target_change": SimpleNamespace(value=fields.pop("change", 1.0)),
    }
    return SimpleNamespace(
        kind="edit", method=method, status="done", concept="hat", measurements=measured,
        beside=fields.get("beside"),
    )  # fmt: skip


def test_controls_within_their_bounds_pass() -> None:
    controls = [edit("oracle", 1.0, 32), edit("random_direction", 0.1, 32, beside="casl")]
    assert broken_bounds([*controls, edit("identity", 0.0, 32, change=0.0)]) == []


@pytest.mark.parametrize(("flip_rate", "n", "broken"), [(0.75, 8, False), (0.75, 100, True)])
def test_an_oracle_is_refused_where_its_flips_are_shown_to_be_few(
    flip_rate: float, n: int, broken: bool
) -> None:
    assert bool(broken_bounds([edit("oracle", flip_rate, n)])) is broken


def test_flips_are_pooled_over_concepts() -> None:
    assert broken_bounds([edit("oracle", 0.7, 20) for _ in range(8)])
    assert not broken_bounds([edit("oracle", 0.5, 2), edit("oracle", 1.0, 30)])


def test_random_may_not_flip_as_many_as_the_oracle() -> None:
    (fault,) = broken_bounds(
        [edit("oracle", 1.0, 8), edit("random_direction", 1.0, 8, beside="casl")]
    )
    assert "random_direction" in fault


def test_identity_may_not_move_anything() -> None:
    (fault,) = broken_bounds([edit("identity", 0.0, 8, change=0.1)])
    assert "hat" in fault
