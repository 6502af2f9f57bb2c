"""What the first rank rests on: does it hold whatever is left out?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import check_array


@dataclass(frozen=True)
class KindSensitivity:
    """Variants of one kind, each with one thing left out.

    Attributes:
        kind: e.g. "attribute", "scorer", "data set" or "concept".
        variants: how many.
        broken_by: names of those in which rank 1 does not hold.
    """

    kind: str
    variants: int
    broken_by: tuple[str, ...]

    @property
    def holds(self) -> int:
        """In how many rank 1 holds."""
        return self.variants - len(self.broken_by)


@dataclass(frozen=True)
class Sensitivity:
    """All variants.

    Attributes:
        kinds: in order of their first variant.
    """

    kinds: tuple[KindSensitivity, ...]

    @property
    def variants(self) -> int:
        """How many in all."""
        return sum(k.variants for k in self.kinds)

    @property
    def holds(self) -> int:
        """In how many of all rank 1 holds."""
        return sum(k.holds for k in self.kinds)


def sensitivity(base: ArrayLike, variants: Mapping[tuple[str, str], ArrayLike]) -> Sensitivity:
    """In how many variants every method that is first stays first, be it with others.

    Args:
        base: [M] scores of the methods, higher is better, finite.
        variants: (kind, name of what is left out) → [M] scores without it.

    Raises:
        InputError: without a method, on another number of scores, NaN or infinity.
    Source: ours.
    """
    scores = check_array("base", base, 1)
    if len(scores) == 0:
        raise InputError("sensitivity needs at least one method")
    first = scores == scores.max()
    broken: dict[str, list[str]] = {}
    for (kind, name), values in variants.items():
        other = check_array(f"variant '{name}'", values, 1, scores.shape)
        broken.setdefault(kind, []).extend([name] if (other[first] < other.max()).any() else [])
    counts = {kind: sum(k == kind for k, _ in variants) for kind in broken}
    return Sensitivity(
        tuple(KindSensitivity(kind, counts[kind], tuple(names)) for kind, names in broken.items())
    )
