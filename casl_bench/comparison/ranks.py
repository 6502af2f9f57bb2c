"""Ranks that the noise leaves open, and groups of methods that it does not tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from string import ascii_letters

from casl_bench.comparison.paired import Difference
from casl_bench.core.errors import InputError

ALPHA = 0.05
"""Probability that any pair at all is falsely told apart."""


@dataclass(frozen=True)
class RankInterval:
    """One method's place.

    Attributes:
        method: its name.
        score: by which it stands where it stands.
        low: best rank left open, 1 first.
        high: worst rank left open.
        group: letters, the best method's first; two methods are told apart just where they share
            none.
    """

    method: str
    score: float
    low: int
    high: int
    group: str


def rank_intervals(
    scores: Mapping[str, float], differences: Sequence[Difference], *, alpha: float = ALPHA
) -> tuple[RankInterval, ...]:
    """From 1 + (methods significantly better) to M - (methods significantly worse).

    Holm's adjustment holds over all pairs together, so with probability 1 - alpha all the true
    ranks lie in their intervals together.

    Args:
        scores: method → its mean over concepts, higher is better.
        differences: of every two of these methods.
        alpha: level of the decisions, in (0, 1).

    Returns:
        Best score first, equal scores in order of name: where two share a letter, that order is no
        result.

    Raises:
        InputError: if a pair is missing, given twice or of another method, or alpha outside (0, 1).
    Source: ranks from pairwise tests as in Mogstad, Romano, Shaikh & Wilhelm 2024; letters as in
    Piepho 2004.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be in (0, 1), got {alpha}")
    order = sorted(scores, key=lambda name: (-scores[name], name))
    pairs = {frozenset((d.a, d.b)) for d in differences}
    wanted = {frozenset((a, b)) for a in order for b in order if a != b}
    if pairs != wanted or len(differences) != len(wanted):
        raise InputError("ranks need the difference of every two methods, once")
    beaten = _beaten(differences, alpha)
    letters = _letters(order, beaten)
    return tuple(
        RankInterval(
            name,
            scores[name],
            1 + sum(loser == name for _, loser in beaten),
            len(order) - sum(winner == name for winner, _ in beaten),
            letters[name],
        )
        for name in order
    )


def _beaten(differences: Sequence[Difference], alpha: float) -> set[tuple[str, str]]:
    """(winner, loser) of every pair that is told apart."""
    told = [d for d in differences if d.p_holm is not None and d.p_holm <= alpha]
    return {(d.a, d.b) if d.value > 0 else (d.b, d.a) for d in told}


def _letters(order: Sequence[str], beaten: set[tuple[str, str]]) -> dict[str, str]:
    """Groups of methods of which no two are told apart, until each such pair is in one."""

    def alike(a: str, b: str) -> bool:
        return (a, b) not in beaten and (b, a) not in beaten

    groups: list[list[str]] = []
    for a, b in combinations_with_replacement(order, 2):
        if not alike(a, b) or any(a in group and b in group for group in groups):
            continue
        group = [a, b]
        for name in order:
            if name not in group and all(alike(name, member) for member in group):
                group.append(name)
        groups.append(group)
    names = [*ascii_letters, *(f"({i})" for i in range(len(groups)))]
    return {
        name: "".join(n for n, group in zip(names, groups, strict=False) if name in group)
        for name in order
    }
