"""How a method looks in every figure: a colour, a dash and a marker of its own.

The colours are Okabe and Ito's, which people with any common colour blindness tell apart; their
yellow is left out, as it is not seen on white.
Source: Okabe and Ito 2008, "Color Universal Design".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from casl_bench.reports.grouping import RowKey

INK = "#010203"
"""Text and axes; a page turns it into the colour of its own text."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_DASH_ARRAYS = {"-": "none", "--": "5 3", "-.": "7 2 2 2", ":": "2 2"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_GREY = "#888888"


@dataclass(frozen=True)
class Style:
    """Of one row (an entrant or a control).

    Attributes:
        series: number of the row in a page: what its curves and its check box share.
        colour: "#rrggbb".
        dash: as matplotlib names it.
        marker: as matplotlib names it.
    """

    series: int
    colour: str
    dash: str
    marker: str

    @property
    def dash_array(self) -> str:
        """The dash as SVG has it."""
        return _DASH_ARRAYS[self.dash]


def styles_of(rows: Iterable[RowKey]) -> dict[RowKey, Style]:
    """A style a row; controls are grey, and no two of the entrants look alike."""
    found: dict[RowKey, Style] = {}
    entrants = controls = 0
    for row in rows:
        control, _, _ = row
        place = controls if control else entrants
        colour = _GREY if control else _COLOURS[place % len(_COLOURS)]
        turn = place if control else place // len(_COLOURS)
        found[row] = Style(
            len(found), colour, _DASHES[turn % len(_DASHES)], _MARKERS[place % len(_MARKERS)]
        )
        controls, entrants = controls + control, entrants + (not control)
    return found


def is_first_of_its_kind(row: RowKey) -> bool:
    """Whether a row is no further draw of a control and no control beside an entrant."""
    control, method, beside = row
    return not control or not (beside or " #" in method)
