"""Methods against each other, as a record keeps it: standings, pairs, what the order rests on."""

from __future__ import annotations

from pydantic import Field

from casl_bench.records.measurement import Finite, Frozen, Measurement

ALL = "all"
"""Stands in the place of a data set in a record that compares methods over several."""


class Standing(Frozen):
    """One method among those compared, at equal effect.

    Attributes:
        method: its name.
        epr_plus: over concepts; its interval is for other images and other concepts like these.
        epr_plus_here: the same number with an interval for these very concepts: other images only.
        rank_low: best rank that the comparison leaves open, 1 first.
        rank_high: worst rank that it leaves open.
        group: letters; two methods that share one are not told apart.
        reached: cells in which the effect was reached.
        wrong_way: cells in which the opposite was.
        cells: cells that count.
        fit_sd: standard deviation of the signed log of `epr_plus` between fits, images equal; n is
            the number of fits.
    """

    method: str
    epr_plus: Measurement
    epr_plus_here: Measurement
    rank_low: int = Field(ge=1)
    rank_high: int = Field(ge=1)
    group: str
    reached: int = Field(ge=0)
    wrong_way: int = Field(ge=0)
    cells: int = Field(ge=1)
    fit_sd: Measurement


class Pair(Frozen):
    """Two methods on the same images and concepts.

    Attributes:
        a: the one.
        b: the other.
        difference: mean over concepts of the signed log of EPR+, a minus b.
        p: two-sided.
        p_holm: adjusted for all pairs of the comparison.
    """

    a: str
    b: str
    difference: Measurement
    p: Finite | None
    p_holm: Finite | None


class Agreement(Frozen):
    """Whether another scorer ranks the methods alike.

    Attributes:
        scorer: the other classifier.
        order: methods, best first, as it ranks them.
        tau: Kendall's tau-b with the order of the first judge; None with fewer than two methods.
        n: methods.
    """

    scorer: str
    order: tuple[str, ...]
    tau: Finite | None
    n: int


class Sensitivity(Frozen):
    """Variants of one kind, each leaving one thing out.

    Attributes:
        kind: "attribute", "scorer", "data set" or "concept".
        variants: how many.
        holds: in how many of them the first method stays first.
        broken_by: what is left out where it does not.
    """

    kind: str
    variants: int
    holds: int
    broken_by: tuple[str, ...]


class Comparison(Frozen):
    """All methods that ran everything, at one level of effect.

    Attributes:
        level: at which they are compared.
        datasets: on which.
        concepts: "dataset/concept", those that count.
        standings: best first.
        pairs: every two of them.
        agreements: one a further classifier.
        sensitivity: one a kind of variant that there is.
        incomplete: methods left out, as they have not run everything.
    """

    level: str
    datasets: tuple[str, ...]
    concepts: tuple[str, ...]
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    agreements: tuple[Agreement, ...]
    sensitivity: tuple[Sensitivity, ...]
    incomplete: tuple[str, ...] = ()
