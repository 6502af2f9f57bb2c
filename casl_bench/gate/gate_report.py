"""What a gate run found: the one thing that every output is made of, and the content of gate.json.

Log ratios are of head over base: −0.105 is a loss of 10 %.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from casl_bench.gate.verdict import Verdict
from casl_bench.records.measurement import Finite, Frozen


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
