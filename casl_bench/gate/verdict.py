"""The verdicts, the margins they go by, the exit codes they lead to, and the content of gate.json.

EPR+ is compared as a log ratio, head over base, averaged over concepts (and fits).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from casl_bench.results.record import Finite, Frozen, RunRecord

ALPHA = 0.05
"""One-sided level of every bound, and of all FAIL verdicts of one run together (Holm)."""

ALPHA_OF_TWO_LOOKS = 0.0304
"""Level of each look where a gate run may look twice, so that both together err in 5 %.

Pocock 1977, for one-sided 5 % and two looks of equally many fits. Without it 7 % were measured.
"""

LOSS = math.log(0.95)
"""A smaller loss of precision is not worth a failed build, however significant."""

GAIN = math.log(1.05)
"""A smaller gain is not worth a new baseline."""

TOLERATED = math.log(0.90)
"""PASS means that a loss as large as this is excluded."""

STRENGTH_LOSS = math.log(0.75)
"""Smallest loss of effect per unit of strength that fails.

Matching the effect hides a method at half its strength: its strength is chosen twice as large. Its
users run it at strength 1 and get half an edit, so this is gated, too, with a wide margin because
fits of one method differ more in it than in their precision.
"""

STRENGTH_ALPHA = 0.01
"""Level of that test, adjusted apart from precision's so that it costs precision no power."""

MIN_FITS = 5
"""Paired fits that a method with random fits needs: with fewer, hardly any loss would be seen."""


class Verdict(StrEnum):
    """What is said of one (data set, method); the most urgent first."""

    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_COMPARABLE = "NOT_COMPARABLE"
    IMPROVED = "IMPROVED"
    PASS = "PASS"
    NEW = "NEW"


EXIT_PASSED, EXIT_REGRESSION, EXIT_OPEN = 0, 1, 4


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """1 if anything fails, else 4 if anything is open or nothing was measured, else 0."""
    found = set(verdicts)
    if Verdict.FAIL in found:
        return EXIT_REGRESSION
    if found & {Verdict.INCONCLUSIVE, Verdict.NOT_COMPARABLE}:
        return EXIT_OPEN
    return EXIT_PASSED if found & {Verdict.PASS, Verdict.IMPROVED} else EXIT_OPEN


# Whether two records of one cell answer the same question.

_Question = tuple[str, Callable[[RunRecord], Any]]

QUESTIONS: tuple[_Question, ...] = (
    ("domain", lambda r: r.domain_kind),
    ("data set revision", lambda r: r.dataset_revision),
    ("suite", lambda r: f"{r.suite.name} v{r.suite.version}"),
    ("seed", lambda r: r.seed),
    ("attributes", lambda r: r.attributes),
    ("primary classifier", lambda r: r.judges[:1]),
    ("classifier weights", lambda r: [(j, r.scorers.get(j)) for j in r.judges[:1]]),
    ("kernels", lambda r: r.provenance.kernels),
    ("backbone weights", lambda r: r.backbone),
)
"""What must be equal in every comparison."""

VERSIONS: tuple[_Question, ...] = (
    ("method version", lambda r: r.method_version),
    ("EPR+ version", lambda r: r.metric_versions.get("epr_plus")),
    ("EPR+ definition", lambda r: r.metric_identities.get("epr_plus")),
)
"""What is raised when a number is meant to change."""


def why_not_comparable(
    base: RunRecord, head: RunRecord, questions: tuple[_Question, ...] = QUESTIONS + VERSIONS
) -> str | None:
    """The first question that two records of a cell answer differently, in words; None if none.

    Settings may differ, as may artifacts that the tested code made, such as the SAE: the effect of
    a changed default is what the gate is asked about.
    """
    for name, answer in questions:
        was, now = answer(base), answer(head)
        if was != now:
            return f"{name}: {_short(was)} in the base, {_short(now)} in the head"
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# The content of gate.json, from which every output is made.

Quantity = Literal["precision", "effect_per_unit_strength"]


class Effect(Frozen):
    """How one quantity differs between head and base; "precision" is EPR+ at equal effect.

    Attributes:
        log_ratio: mean over concepts (and fits).
        low: one-sided 95 % lower bound, as `high` is the upper one; None, with all p-values, where
            there is none, for the `reason`.
        p: one-sided, of there being no loss, as `p_better` is of there being no gain.
        p_holm: `p` adjusted for all tests of the gate run.
        varies_by: what the bounds are made of: "images" resampled, "fits", or "nothing" varies.
        n: images or fits.
    """

    quantity: Quantity
    log_ratio: Finite
    low: Finite | None = None
    high: Finite | None = None
    p: Finite | None = None
    p_better: Finite | None = None
    p_holm: Finite | None = None
    varies_by: Literal["images", "fits", "nothing"]
    n: int
    reason: str | None = None


class CellVerdict(Frozen):
    """The verdict on one (data set, method), over `concepts` concepts and `fits` paired fits.

    `base` and `head` are their EPR+, back from the mean over concepts and fits on the gate's scale;
    `effects` are what was tested.
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

    def effect(self, quantity: Quantity) -> Effect | None:
        """The change of a quantity, None where it was not tested."""
        return next((e for e in self.effects if e.quantity == quantity), None)


class SideInfo(Frozen):
    """The run that a side is from."""

    where: str
    commit: str | None = None
    dirty: bool | None = None
    suite: str = ""


class GateReport(Frozen):
    """A gate run.

    Attributes:
        base: None where there is no base yet.
        head: None where it could not be read.
        cells: failures first.
        notes: caveats for the reader.
        error: why there is no verdict; None where there is one.
    """

    format: Literal["casl-bench-gate/2"] = "casl-bench-gate/2"
    tier: str
    exit_code: int
    headline: str
    base: SideInfo | None = None
    head: SideInfo | None = None
    cells: tuple[CellVerdict, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None

    def of(self, *verdicts: Verdict) -> list[CellVerdict]:
        """Cells with one of these verdicts."""
        return [c for c in self.cells if c.verdict in verdicts]
