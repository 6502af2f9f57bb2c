"""Per-image scores of a cell → everything that its record says in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.bootstrap import evaluate, evaluate_ratio
from casl_bench.metrics.edit_success import drift, drift_margin
from casl_bench.metrics.epr_plus import evaluate_epr_plus
from casl_bench.metrics.image_similarity import GUARD_THRESHOLD
from casl_bench.metrics.metric import METRICS
from casl_bench.results.record import LevelResult, Measurement
from casl_bench.results.score_table import Array, EditScores, ScoreTable
from casl_bench.runs.strength import Level, Matching, effect_name, precision_area
from casl_bench.runs.suites import Suite

EPR_PLUS = "epr_plus"
"""The headline: signed, standardised, at equal effect, over the random direction's."""

RANDOM_RATIO_OF = "epr_floored"
OVER_RANDOM = "epr_over_random"
PRECISION_AREA = "precision_area"

ONE_JUDGE = 0.5
"""A target change that another judge sees less than this share of is flagged."""


@dataclass(frozen=True)
class Unrelated:
    """How far apart test images are that have nothing to do with each other.

    Attributes:
        perceptual: mean distance of pairs, > 0; None where it cannot be told.
        identity: mean likeness of pairs, below 1; None likewise.
    """

    perceptual: float | None
    identity: float | None


Null = Sequence[tuple[ScoreTable, float]]
"""Scores of a concept's random draws, each with the strength at which it has its effect."""


@dataclass(frozen=True)
class View:
    """A table as judges see it.

    Attributes:
        table: scores of one cell.
        attribute: the target.
        spreads: [K, A] standard deviation of each classifier's logits over real source images, in
            the table's order.
        judges: classifiers, the one that decides first.
        unrelated: what the guards are measured in.
    """

    table: ScoreTable
    attribute: str
    spreads: Array
    judges: tuple[str, ...]
    unrelated: Unrelated

    def at(self, strength: float, judge: str | None = None) -> EditScores:
        """What a metric sees at a strength; other judges' scores hold logits alone.

        Args:
            strength: one of the table's, or 0.
            judge: default the one that decides.
        """
        name = judge or self.judges[0]
        spread = self.spreads[self.table.classifiers.index(name)]
        scores = self.table.at(
            strength,
            self.attribute,
            spread,
            classifier=name,
            unrelated_perceptual=self.unrelated.perceptual,
            unrelated_identity=self.unrelated.identity,
        )
        if name == self.judges[0]:
            return scores
        return EditScores(
            scores.source, scores.base, scores.edit, scores.target, scores.sign, scores.spread
        )

    def of(self, table: ScoreTable) -> View:
        """Another table of the same images, seen alike."""
        return replace(self, table=table)


def measurements(view: View, strength: float, seed: int, null: Null = ()) -> dict[str, Measurement]:
    """Every registered metric, and EPR+ where there is a null.

    Under the metric's name by the judge that decides, under `metric@judge` by the others, of
    these only what is defined.

    Args:
        view: of the cell.
        strength: one of the table's.
        seed: of the resamples.
        null: the concept's random draws.
    """
    found: dict[str, Measurement] = {}
    for judge in view.judges:
        scores = view.at(strength, judge)
        own = {}
        for name in METRICS.names():
            metric = METRICS.create(name)
            estimate = evaluate(metric, scores, derive_seed(seed, "bootstrap", name))
            own[name] = Measurement.from_estimate(estimate, metric.info.unit)
        own[EPR_PLUS] = _epr_plus(view, scores, judge, seed, null)
        if judge == view.judges[0]:
            found |= own
        else:
            found |= {f"{n}@{judge}": m for n, m in own.items() if m.status == "ok"}
    return found


def _epr_plus(view: View, scores: EditScores, judge: str, seed: int, null: Null) -> Measurement:
    if not null:
        return Measurement.missing("no random direction was run", "ratio")
    random = [view.of(table).at(strength, judge) for table, strength in null]
    estimate = evaluate_epr_plus(scores, random, derive_seed(seed, "bootstrap", EPR_PLUS))
    return Measurement.from_estimate(estimate, "ratio")


def level_result(view: View, level: Level, seed: int, null: Null = ()) -> LevelResult:
    """A level with what the test images show there."""
    found: dict[str, Measurement] = {}
    if level.strength is not None:
        found = measurements(view, level.strength, seed, null)
    return LevelResult(
        name=level.name,
        goal=level.goal,
        unit=level.unit,
        status=level.status,
        strength=level.strength,
        largest=level.largest,
        measurements=found,
    )


def not_reached(headline: LevelResult, at: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """EPR+ of a cell that did not reach the headline's effect: no number, by any judge."""
    reason = (
        f"not reached: largest effect {headline.largest:.3g} of {headline.goal:.3g} {headline.unit}"
    )
    return {
        name: Measurement.undefined(reason, m.n, m.unit)
        for name, m in at.items()
        if name.split("@")[0] == EPR_PLUS
    }


def area_measurement(view: View, suite: Suite, matching: Matching, seed: int) -> Measurement:
    """Area under precision versus effect over the suite's levels."""
    strengths = {level.name: level.strength for level in matching.levels
                 if level.status == "reached"}  # fmt: skip
    at = [strengths.get(effect_name(share)) for share in suite.effects]
    scores = [None if s is None else view.at(s) for s in at]
    estimate = precision_area(suite.effects, scores, derive_seed(seed, "bootstrap", PRECISION_AREA))
    return Measurement.from_estimate(estimate, "share")


def over_random(view: View, random: ScoreTable, strength: float, seed: int) -> Measurement:
    """EPR over that of a random edit of equal norm, on the same images, resampled together."""
    estimate = evaluate_ratio(
        METRICS.create(RANDOM_RATIO_OF),
        view.at(strength),
        view.of(random).at(strength),
        derive_seed(seed, "bootstrap", OVER_RANDOM),
    )
    return Measurement.from_estimate(estimate, "ratio")


def drift_by_attribute(
    view: View, strength: float, attributes: Sequence[str]
) -> dict[str, float | None]:
    """Attribute → signed mean change in sd."""
    at = view.at(strength)
    moved = drift(at.base, at.edit, at.spread)
    return {name: float(value) for name, value in zip(attributes, moved, strict=True)}


def drift_margins(view: View, strength: float, attributes: Sequence[str]) -> dict[str, float]:
    """Attribute → half of the 95 % interval of its drift; empty with fewer than two images."""
    at = view.at(strength)
    margins = drift_margin(at.base, at.edit, at.spread)
    if margins is None:
        return {}
    return {name: float(value) for name, value in zip(attributes, margins, strict=True)}


def flags(
    at: Mapping[str, Measurement],
    headline: LevelResult | None,
    matching: Matching,
    view: View,
    *,
    pretrained: bool,
    guided: bool,
) -> tuple[str, ...]:
    """What a reader should know before trusting a cell's numbers, sorted.

    Args:
        at: measurements at the reported strength.
        headline: the level that the main table compares at; None where nothing was matched.
        matching: the cell's strengths.
        view: of the cell.
        pretrained: whether somebody else fitted it.
        guided: whether a scorer guided it.
    """
    found = set()
    if pretrained:
        found.add("pretrained weights")
    if guided:
        found.add("guided by a scorer")
    if at["epr_raw"].status == "undefined":
        found.add("EPR undefined")
    wrong = at["wrong_way_rate"].value
    if (wrong is not None and wrong > 0.5) or (headline and headline.status == "wrong_way"):
        found.add("wrong way")
    if headline is not None and headline.status == "not_reached":
        found.add("not reached")
    if not matching.monotone:
        found.add("non-monotone")
    for guard in ("perceptual_guard", "identity_guard"):
        value = at[guard].value
        if value is not None and value > GUARD_THRESHOLD:
            found.add(guard.replace("_", " "))
    change = at["signed_target_change"].value
    for judge in view.judges[1:]:
        other = at.get(f"signed_target_change@{judge}")
        seen = None if other is None else other.value
        if change is not None and change > 0 and seen is not None and seen < ONE_JUDGE * change:
            found.add("one judge only")
    return tuple(sorted(found))
