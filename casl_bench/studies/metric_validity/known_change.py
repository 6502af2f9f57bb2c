"""What an edit truly did, read off the factors that were drawn: no network is asked.

Every factor counts in its own standard deviation over the data set: a fair coin's is 1/2, so
turning an attribute on is a change of 2; a uniform factor's is 1/sqrt(12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from casl_bench.core.errors import InputError
from casl_bench.images.drawing import Factors
from casl_bench.metrics.arrays import Array

ATTRIBUTE_SD = 0.5
NUISANCE_SD = 12**-0.5


@dataclass(frozen=True)
class KnownChange:
    """Means over images, in standard deviations of the factors.

    Attributes:
        target: signed change of the target, + where it is turned on.
        effort: absolute change of the target, at least |target|.
        collateral: absolute changes of all other factors, summed over factors.
    """

    target: float
    effort: float
    collateral: float

    @property
    def precision(self) -> float:
        """Target / (effort + collateral): the share of all change that was asked for, in [-1, 1].

        Raises:
            InputError: nothing was changed, so there is nothing to be precise about.
        """
        if self.effort + self.collateral == 0:
            raise InputError("an edit that changes no factor has no precision")
        return self.target / (self.effort + self.collateral)


def known_change(
    before: Factors, start: Factors, end: Factors, share: float, target: int
) -> KnownChange:
    """The change from `before` to a picture that shows `share` of `end` and the rest of `start`.

    Args:
        before: factors of the n images that are edited, n >= 1.
        start: factors of the picture that is blended from.
        end: factors of the picture that is blended to.
        share: of `end`, in [0, 1]; 1 is `end` itself.
        target: column of the attribute that is to be turned on.

    Raises:
        InputError: if the three are not of the same images, or the share is out of its range.
    """
    ids = before.image_ids
    if len(ids) == 0 or not all(np.array_equal(ids, f.image_ids) for f in (start, end)):
        raise InputError("a change is known between factors of the same images, at least one")
    if not 0 <= share <= 1:
        raise InputError(f"a blend has a share in [0, 1], not {share}")
    was, first, last = (_standardised(f) for f in (before, start, end))
    moved = (1 - share) * first + share * last - was
    others = np.delete(np.abs(moved), target, axis=1)
    return KnownChange(
        target=float(moved[:, target].mean()),
        effort=float(np.abs(moved[:, target]).mean()),
        collateral=float(others.sum(1).mean()),
    )


def _standardised(factors: Factors) -> Array:
    attributes = factors.attributes.astype(np.float64) / ATTRIBUTE_SD
    nuisance = factors.nuisance.astype(np.float64) / NUISANCE_SD
    return np.concatenate([attributes, nuisance], axis=1)
