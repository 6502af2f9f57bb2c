"""Drawings: factors belong to their ids, pictures to their factors, the revision to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import Concept
from casl_bench.domains.rendering import renderer
from casl_bench.domains.rendering.faces import DRAWING
from casl_bench.domains.rendering.renderer import Drawing, Factors


class _Flat:
    """Red where the first attribute is on, green where the second is, blue by the nuisance."""

    def __init__(self, attributes: Sequence[bool], nuisance: Sequence[float]) -> None:
        self.colour = [200 * attributes[0], 200 * attributes[1], int(255 * nuisance[0])]

    def draw(self) -> NDArray[np.uint8]:
        return np.broadcast_to(np.array(self.colour, dtype=np.uint8), (64, 64, 3))


class _OneLevelBrighter(_Flat):
    def draw(self) -> NDArray[np.uint8]:
        return super().draw() + np.uint8(self.colour[0] > 0)


class _Elsewhere(_Flat):
    """The same pixels."""


FLAT = Drawing(
    name="flat", subject="cards", attributes=("red", "green"), nuisance=("blue", "grain"),
    scenery=("blue",), unread=("grain",), concepts=(Concept("red", "black", "red", "red"),),
    picture=_Flat,
)  # fmt: skip


def test_factors_depend_on_seed_and_id_alone() -> None:
    many = FLAT.sample(np.arange(100), seed=3)
    few = FLAT.sample([70, 5], seed=3)
    assert np.array_equal(few.attributes, many.attributes[[70, 5]])
    assert np.array_equal(few.nuisance, many.nuisance[[70, 5]])
    other = FLAT.sample(np.arange(100), seed=4)
    assert not np.array_equal(other.attributes, many.attributes)


def test_attributes_are_fair_independent_coins_and_nuisance_is_uniform() -> None:
    factors = FLAT.sample(np.arange(4000), seed=0)
    assert np.allclose(factors.attributes.mean(0), 0.5, atol=0.03)
    assert abs(np.corrcoef(factors.attributes.T)[0, 1]) < 0.05
    assert np.allclose(factors.nuisance.mean(0), 0.5, atol=0.03)
    assert factors.nuisance.min() >= 0 and factors.nuisance.max() < 1


def test_one_attribute_is_flipped_and_nothing_else() -> None:
    factors = FLAT.sample(np.arange(10), seed=0)
    flipped = FLAT.flipped(factors, "green")
    assert np.array_equal(flipped.attributes[:, 1], ~factors.attributes[:, 1])
    assert np.array_equal(flipped.attributes[:, 0], factors.attributes[:, 0])
    assert np.array_equal(flipped.nuisance, factors.nuisance)
    with pytest.raises(UsageError, match="did you mean 'green'"):
        FLAT.flipped(factors, "gren")


def test_in_parallel_the_pictures_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # A drawing of the package: worker processes import the class that draws.
    factors = DRAWING.sample(np.arange(12), seed=0)
    monkeypatch.setattr(renderer, "PICTURES_OF_A_TASK", 5)
    assert np.array_equal(DRAWING.render(factors), DRAWING.render_parallel(factors))


def test_the_revision_follows_pixels_and_names_not_the_source() -> None:
    assert replace(FLAT, picture=_Elsewhere).revision == FLAT.revision
    assert replace(FLAT, picture=_OneLevelBrighter).revision != FLAT.revision
    assert replace(FLAT, attributes=("red", "verdant")).revision != FLAT.revision


def test_wrong_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        FLAT.sample([-1], seed=0)
    one = FLAT.sample([1], seed=0)
    with pytest.raises(ValueError, match="2 rows"):
        Factors(one.image_ids, np.repeat(one.attributes, 2, 0), one.nuisance)
