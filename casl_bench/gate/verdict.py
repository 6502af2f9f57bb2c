"""The verdicts, the margins they go by, and the exit codes they lead to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from casl_bench.results.record import Finite, Frozen, RunRecord

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


# May two records of one cell be compared at all? Only if they are answers to one question.


_Question = tuple[str, Callable[[RunRecord], Any]]

QUESTIONS: tuple[_Question, ...] = (
    ("world", lambda r: r.world),
    ("data set revision", lambda r: r.dataset_revision),
    ("suite", lambda r: f"{r.suite.name} v{r.suite.version}"),
    ("seed", lambda r: r.seed),
    ("attributes", lambda r: r.attributes),
    ("deciding classifier", lambda r: r.judges[:1]),
    ("classifier weights", lambda r: [(j, r.scorers.get(j)) for j in r.judges[:1]]),
    ("kernels", lambda r: r.provenance.kernels),
    ("backbone weights", lambda r: r.backbone),
)
"""What must be equal whatever is compared."""

VERSIONS: tuple[_Question, ...] = (
    ("method version", lambda r: r.method_version),
    ("EPR+ version", lambda r: r.metric_versions.get("epr_plus")),
    ("EPR+ definition", lambda r: r.metric_identities.get("epr_plus")),
)
"""What is raised when a number is meant to move."""


def why_not_comparable(
    base: RunRecord, head: RunRecord, questions: tuple[_Question, ...] = QUESTIONS + VERSIONS
) -> str | None:
    """The first thing in which two records differ and must not, in words; None if there is none.

    Settings may differ: a changed default is a change whose effect the gate is to tell. So may the
    SAE and other artefacts that the code under test has made.

    Args:
        base: of a cell.
        head: of the same cell.
        questions: what must be equal.
    """
    for name, answer in questions:
        was, now = answer(base), answer(head)
        if was != now:
            return f"{name}: {_short(was)} in the base, {_short(now)} in the head"
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# What a gate run found: the one thing that every output is made of, and the content of gate.json.


class Effect(Frozen):
    """How one quantity differs between head and base.

    Attributes:
        quantity: "precision" is EPR+ at equal effect, "potency" the effect a unit of strength.
        log_ratio: mean over concepts (and fits).
        low: one-sided 95 % bound from below; None, with `high` and `p`, where there is none.
        high: one-sided 95 % bound from above.
        p: one-sided, of there being no loss.
        p_holm: adjusted for all tests of the gate run.
        varies_by: what the bounds are made of: "images" resampled, "fits", or "nothing" varies.
        n: images or fits.
        reason: why there are no bounds.
    """

    quantity: Literal["precision", "potency"]
    log_ratio: Finite
    low: Finite | None = None
    high: Finite | None = None
    p: Finite | None = None
    p_holm: Finite | None = None
    varies_by: Literal["images", "fits", "nothing"]
    n: int
    reason: str | None = None


class CellVerdict(Frozen):
    """One (data set, method).

    Attributes:
        dataset: its name.
        method: its name.
        verdict: see `Verdict`.
        reason: in words.
        base: EPR+ of the base: back from the mean over concepts and fits on the gate's scale.
        head: EPR+ of the head, likewise.
        effects: what was tested.
        concepts: how many are behind it.
        fits: paired ones behind it.
    """

    dataset: str
    method: str
    verdict: Verdict
    reason: str
    base: Finite | None = None
    head: Finite | None = None
    effects: tuple[Effect, ...] = ()
    concepts: int = Field(default=0, ge=0)
    fits: int = Field(default=0, ge=0)

    def effect(self, quantity: str) -> Effect | None:
        """What was found of a quantity."""
        return next((e for e in self.effects if e.quantity == quantity), None)


class SideInfo(Frozen):
    """Which run a side is of."""

    where: str
    commit: str | None = None
    dirty: bool | None = None
    suite: str = ""


class Alert(Frozen):
    """Something to look at that is no verdict: speed or memory."""

    name: str
    ratio: Finite
    text: str


class GateReport(Frozen):
    """A gate run.

    Attributes:
        format: of this file.
        tier: "statistical", "exact" or "both".
        exit_code: as of the command.
        headline: the verdict in one line.
        base: None where there is none yet.
        head: None where it could not be read.
        cells: failures first.
        alerts: never part of the verdict.
        notes: what a reader should know.
        error: why there is no verdict; None where there is one.
    """

    format: Literal["casl-bench-gate/1"] = "casl-bench-gate/1"
    tier: str
    exit_code: int
    headline: str
    base: SideInfo | None = None
    head: SideInfo | None = None
    cells: tuple[CellVerdict, ...] = ()
    alerts: tuple[Alert, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None

    def of(self, *verdicts: Verdict) -> list[CellVerdict]:
        """Cells with one of these verdicts."""
        return [c for c in self.cells if c.verdict in verdicts]
