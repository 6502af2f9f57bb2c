"""The verdicts, the margins they go by, and the exit codes they lead to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum

ALPHA = 0.05
"""One-sided level of every bound; of all FAIL verdicts of one run together, by Holm."""

ALPHA_OF_TWO_LOOKS = 0.0304
"""What takes its place at each look where a gate run may look twice: both together err in 5 %.

Pocock 1977, for one-sided 5 % and two looks of equally many fits. Without it 7 % were measured.
"""

LOSS = math.log(0.95)
"""A smaller loss of precision than this is not worth a red build, however certain it is."""

GAIN = math.log(1.05)
"""A smaller gain is not worth a new baseline."""

TOLERATED = math.log(0.90)
"""PASS says that the loss, if there is one, is smaller than this."""

POTENCY_LOSS = math.log(0.75)
"""Smallest loss of effect per unit of strength that is red.

At equal effect a method at half its strength is as precise as before: its strength is simply chosen
twice as large. Whoever runs it at strength 1 gets half an edit all the same, so this is gated, too,
with a wide margin: fits of one method differ more in it than in their precision.
"""

POTENCY_ALPHA = 0.01
"""Level at which a loss of potency is certain, by Holm over potencies: it is there to see what is
broken, and must not cost the precision's test its power."""

MIN_FITS = 5
"""Paired fits that a fit with random numbers needs: with fewer, hardly any loss would be seen."""


class Verdict(StrEnum):
    """Of one (data set, method)."""

    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_COMPARABLE = "NOT_COMPARABLE"
    IMPROVED = "IMPROVED"
    PASS = "PASS"
    NEW = "NEW"


EXIT_PASSED, EXIT_REGRESSION, EXIT_OPEN, EXIT_INVALID = 0, 1, 4, 5


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """1 if anything fails, else 4 if anything is left open or nothing was gated, else 0.

    A gate that measured nothing is not green.
    """
    found = set(verdicts)
    if Verdict.FAIL in found:
        return EXIT_REGRESSION
    if found & {Verdict.INCONCLUSIVE, Verdict.NOT_COMPARABLE}:
        return EXIT_OPEN
    return EXIT_PASSED if found & {Verdict.PASS, Verdict.IMPROVED} else EXIT_OPEN
