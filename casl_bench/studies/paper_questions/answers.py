"""Records of a run and rows of the study → the numbers that answer the paper's questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from casl_bench.metrics.bootstrap import (
    RESAMPLES,
    percentile_interval,
    resampling_weights,
    student_margin,
)
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.report.markdown import DASH, number
from casl_bench.results.record import ALL, Comparison, Measurement, RunRecord, headline_level
from casl_bench.studies.paper_questions.study import LatentRows, Latents, Question, VariantRow

# Numbers of many concepts → one, with an interval over concepts.


@dataclass(frozen=True)
class Over:
    """One number over n concepts; without an interval where there are fewer than two, or none."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def text(self) -> str:
        """As a table shows it."""
        if self.value is None:
            return DASH
        if self.low is None or self.high is None:
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"

    @property
    def above_zero(self) -> bool | None:
        """Which side of 0 all of the interval lies on; None where it holds 0 or is not there."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return self.low > 0


def mean_over(values: Iterable[float | None]) -> Over:
    """The mean of one value per concept that has one, with Student's t interval."""
    array = np.array([value for value in values if value is not None])
    n = len(array)
    if not n:
        return Over(None, None, None, 0)
    centre = float(array.mean())
    half = float(student_margin(array)) if n > 1 else 0.0
    if half == 0:
        return Over(centre, None, None, n)
    return Over(centre, centre - half, centre + half, n)


def from_signed_log(found: Over) -> Over:
    """A mean of signed logs on the scale of EPR+."""
    value, low, high = (None if x is None else signed_exp(x) for x in
                        (found.value, found.low, found.high))  # fmt: skip
    return Over(value, low, high, found.n)


def share_of(part: Sequence[float], whole: Sequence[float]) -> Over:
    """Sum of the parts over sum of the wholes, one of each per concept, resampled together.

    A mean of ratios would explode on a concept whose whole is next to nothing.
    """
    n, columns = len(part), np.stack([part, whole], axis=1)
    if not n or not columns[:, 1].sum() > 0:
        return Over(None, None, None, n)
    value = float(columns[:, 0].sum() / columns[:, 1].sum())
    if n < 2:
        return Over(value, None, None, n)
    resampled = resampling_weights(n, RESAMPLES, 0) @ columns
    with np.errstate(divide="ignore", invalid="ignore"):  # not finite: left out
        interval = percentile_interval(resampled[:, 0] / resampled[:, 1], n)
    low, high = interval or (None, None)
    return Over(value, low, high, n)


Place = tuple[str, str]
"""(data set, concept)."""


@dataclass(frozen=True)
class Evidence:
    """What every answer is read from: the records of a finished run, and the study of it."""

    records: tuple[RunRecord, ...]
    study: LatentRows

    @property
    def datasets(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted({row.dataset for row in self.study.rows}))

    def of(self, datasets: Iterable[str]) -> Evidence:
        """Of some data sets alone."""
        kept = set(datasets)
        return Evidence(
            tuple(r for r in self.records if r.dataset in kept),
            LatentRows(self.study.header, tuple(r for r in self.study.rows if r.dataset in kept)),
        )

    def edits(self, method: str) -> dict[Place, RunRecord]:
        """Finished records of a method's first fit, or of a control that stands alone."""
        return {
            (r.dataset, r.concept or ""): r
            for r in self.records
            if (r.kind, r.method, r.status) == ("edit", method, "done")
            and r.beside is None
            and not r.fit_seed
        }

    def variants(
        self, question: Question, latents: Latents, k: int | None = None
    ) -> dict[Place, VariantRow]:
        """Rows of one variant; of any k where None."""
        return {
            (r.dataset, r.concept): r
            for r in self.study.rows
            if (r.question, r.latents) == (question, latents) and k in (None, r.k)
        }


def value_of(measurements: Mapping[str, Measurement], name: str) -> float | None:
    """What was measured; None where it is undefined, or was not measured at all."""
    return measurements[name].value if name in measurements else None


# 1. Aligned latents exist ------------------------------------------------------------------------


def probe(evidence: Evidence, method: str, features: str) -> dict[Place, float]:
    """Test accuracy of a method's probes on some features, one a concept."""
    return {
        (r.dataset, r.concept or ""): value
        for r in evidence.records
        if (r.kind, r.method, r.status) == ("probe", method, "done")
        and (value := value_of(r.measurements, features)) is not None
    }


def difference(a: Mapping[Place, float], b: Mapping[Place, float]) -> Over:
    """Mean of a - b over the concepts that have both."""
    return mean_over([a[place] - b[place] for place in a if place in b])


# 2. They act, and locally ------------------------------------------------------------------------


@dataclass(frozen=True)
class Dose:
    """Validation images at one strength, over concepts."""

    strength: float
    effect: Over
    collateral: Over


def dose_response(evidence: Evidence, method: str) -> list[Dose]:
    """A method's response at every strength that all its concepts were run at.

    Effect: target change as asked in shares of the perfect edit's. Collateral: mean change of the
    other attributes, in sd.
    """
    records = evidence.edits(method).values()
    curves = [{point.strength: point.measurements for point in r.curve} for r in records]
    doses = []
    for strength in sorted(set(curves[0]).intersection(*curves[1:])) if curves else ():
        effects = []
        for record, curve in zip(records, curves, strict=True):
            change = value_of(curve[strength], "signed_target_change")
            if change is not None and record.full_effect:
                effects.append(change / record.full_effect)
        collateral = (value_of(curve[strength], "mean_collateral") for curve in curves)
        doses.append(Dose(strength, mean_over(effects), mean_over(collateral)))
    return doses


def monotone(evidence: Evidence, method: str) -> tuple[int, int]:
    """Concepts whose response is not flagged `non-monotone`, and all of them."""
    records = evidence.edits(method).values()
    return sum("non-monotone" not in r.flags for r in records), len(records)


def at_headline(evidence: Evidence, method: str, name: str) -> dict[Place, float]:
    """A measurement at equal effect, of the concepts in which the effect was reached."""
    levels = {place: headline_level(r.levels) for place, r in evidence.edits(method).items()}
    return {
        place: value
        for place, level in levels.items()
        if level is not None
        and level.status == "reached"
        and (value := value_of(level.measurements, name)) is not None
    }


def effects(rows: Mapping[Place, VariantRow]) -> dict[Place, float]:
    """Effect of each row, in shares of the perfect edit's."""
    return {place: e for place, row in rows.items() if (e := row.effect) is not None}


def left_of(evidence: Evidence, latents: Latents, k: int | None) -> Over:
    """Share of CASL's effect that is left once latents are taken away from its map."""
    whole = effects(evidence.variants("ablation", "none"))
    part = effects(evidence.variants("ablation", latents, k))
    places = [p for p in whole if p in part]
    return share_of([part[p] for p in places], [whole[p] for p in places])


# 3. CASL against each baseline -------------------------------------------------------------------


def comparison(evidence: Evidence) -> Comparison | None:
    """How methods compare over all data sets."""
    for record in evidence.records:
        if record.kind == "comparison" and record.dataset == ALL:
            return record.comparison
    return None


@dataclass(frozen=True)
class Against:
    """CASL against another method at equal effect, on the scale of signed logs."""

    other: str
    difference: Over
    p: float | None


def against(evidence: Evidence, method: str) -> list[Against]:
    """A method's paired comparisons, in the order of the standings."""
    found = comparison(evidence)
    if found is None:
        return []
    rows = {}
    for pair in (p.seen_from(method) for p in found.pairs if method in (p.a, p.b)):
        d = pair.difference
        over = Over(d.value, d.low, d.high, len(found.concepts))
        rows[pair.b] = Against(pair.b, over, pair.p_holm)
    return [rows[s.method] for s in found.standings if s.method in rows]


# 4. Top-k against crosstalk ----------------------------------------------------------------------


def precision(rows: Mapping[Place, VariantRow]) -> dict[Place, float]:
    """Signed log of EPR+ at equal effect; 0 where the effect is not reached."""
    found = {}
    for place, row in rows.items():
        value = value_of(row.measurements, "epr_plus")
        if not row.reached:
            found[place] = 0.0
        elif value is not None:
            found[place] = signed_log(value)
    return found


def per_doubling(evidence: Evidence) -> Over:
    """Slope of the signed log of EPR+ over log2 k of CASL-Steer, mean over concepts.

    Only k at which the effect was reached; a concept with fewer than two of them has no slope.
    """
    slopes = []
    for place in evidence.variants("size", "top"):
        points = []
        for k in evidence.study.header.ks:
            row = evidence.variants("size", "top", k).get(place)
            value = None if row is None else value_of(row.measurements, "epr_plus")
            if row is not None and row.reached and value is not None:
                points.append((math.log2(k), signed_log(value)))
        if len(points) >= 2:
            doublings, values = np.array(points).T
            slopes.append(float(np.polyfit(doublings, values, deg=1)[0]))
    return mean_over(slopes)


def per_dataset(evidence: Evidence, of: Callable[[Evidence], Over]) -> list[Over]:
    """A number over all concepts, then over each data set's."""
    return [of(evidence), *(of(evidence.of([d])) for d in evidence.datasets)]
