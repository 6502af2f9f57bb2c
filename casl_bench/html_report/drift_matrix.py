"""What each method drags along: a matrix of concepts × attributes a method, shaded by size."""

from __future__ import annotations

from dataclasses import dataclass

from casl_bench.html_report.curves import label
from casl_bench.html_report.styles import is_first_of_its_kind
from casl_bench.reports.grouping import Group, RowKey
from casl_bench.reports.markdown import DASH, number

_FULL_SHADE = 1.0
"""σ from which a cell has its full colour."""


@dataclass(frozen=True)
class Cell:
    """Mean change of an attribute.

    Attributes:
        text: in σ, or a dash.
        shade: 0 … 1, how strong its colour is.
        sign: "up", "down" or "" (unknown).
        target: whether it is the attribute asked for.
    """

    text: str
    shade: float
    sign: str
    target: bool


@dataclass(frozen=True)
class Matrix:
    """Of one method.

    Attributes:
        name: of the method.
        attributes: columns.
        rows: (concept, its cells).
    """

    name: str
    attributes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def drift_matrices(group: Group) -> list[Matrix]:
    """One a method and control that has any drift; not of further draws, nor beside a method."""
    found = []
    for key in group.edits:
        attributes = _attributes(group, key)
        if attributes and is_first_of_its_kind(key):
            rows = tuple(
                (c, tuple(_cell(r.drift.get(a), a == c) for a in attributes))
                for c, r in sorted(group.done(key).items())
            )
            found.append(Matrix(label(key), attributes, rows))
    return found


def _attributes(group: Group, key: RowKey) -> tuple[str, ...]:
    """In the classifiers' order, as far as any concept has a drift of them."""
    records = group.done(key).values()
    there = {a for r in records for a in r.drift}
    return tuple(dict.fromkeys(a for r in records for a in r.attributes if a in there))


def _cell(drift: float | None, target: bool) -> Cell:
    if drift is None:
        return Cell(DASH, 0.0, "", target)
    sign = "up" if drift > 0 else "down"
    return Cell(number(drift), min(1.0, abs(drift) / _FULL_SHADE), sign, target)
