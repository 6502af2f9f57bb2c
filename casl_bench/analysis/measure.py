"""Per-image scores of a cell → its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.bootstrap import evaluate, evaluate_ratio
from casl_bench.metrics.edit_scores import PER_IMAGE, Array, EditScores
from casl_bench.metrics.edit_success import attribute_shift, attribute_shift_margin
from casl_bench.metrics.epr import EPR_FLOORED, EPR_OVER_RANDOM_INFO
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO, evaluate_epr_plus
from casl_bench.metrics.equal_effect import PRECISION_AREA_INFO, precision_area
from casl_bench.metrics.image_similarity import DRIFT_THRESHOLD
from casl_bench.metrics.metric import METRICS, EditMetric, metric_identity, metric_infos
from casl_bench.metrics.precise_edits import (
    PRECISE_EDIT_RATE_INFO,
    PRECISE_EDITS_INFO,
    TOLERANCE,
    TOLERANCES,
    ImageOutcomes,
    evaluate_precise_edits,
    image_outcomes,
)
from casl_bench.results.record import (
    CellRecord,
    CurvePoint,
    Level,
    LevelResult,
    Measurement,
    ReferenceScales,
    RunRecord,
    headline_level,
)
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import StoredCell

PRECISE_EDITS = PRECISE_EDITS_INFO.name
BEST_STRENGTH = "best_strength"
"""Measurement: the strength at which precise edits are counted."""

EPR_PLUS = EPR_PLUS_INFO.name
OVER_RANDOM = EPR_OVER_RANDOM_INFO.name
PRECISION_AREA = PRECISION_AREA_INFO.name

ONE_CLASSIFIER = 0.5
"""A target change that another classifier sees less than this share of is flagged."""

OFF_GOAL = 1.5
"""So is an effect on test images that is this many times the goal, or the goal that of it: its
strength was chosen on validation images."""

_UNRELATED = ("unrelated_perceptual", "unrelated_identity")

RandomDirections = Sequence[tuple[ScoreTable, float]]
"""Scores of random directions, each with the strength at which it has its effect on a concept."""


@dataclass(frozen=True)
class ScoredCell:
    """The scores of one cell with its target and its classifiers, the primary one first."""

    table: ScoreTable
    attribute: str
    classifiers: tuple[str, ...]
    scales: ReferenceScales

    def at(self, strength: float, classifier: str | None = None) -> EditScores:
        """What a metric sees at a strength of the table, or 0; default: the primary classifier.

        Scores of further classifiers hold logits alone.
        """
        name = classifier or self.classifiers[0]
        if name != self.classifiers[0]:
            return self.logits_at(strength, name)
        return self.table.at(
            strength,
            self.attribute,
            np.array(self.scales.spreads[name]),
            classifier=name,
            unrelated_perceptual=self.scales.unrelated_perceptual,
            unrelated_identity=self.scales.unrelated_identity,
        )

    def logits_at(self, strength: float, classifier: str) -> EditScores:
        """The same without what other scorers measured."""
        spread = np.array(self.scales.spreads[classifier])
        scores = self.table.at(strength, self.attribute, spread, classifier=classifier)
        return EditScores(
            scores.source, scores.base, scores.edit, scores.target, scores.sign, scores.spread
        )

    def with_guards(self, strength: float, scores: EditScores) -> EditScores:
        """Scores of another classifier with what other scorers measured."""
        primary = self.at(strength)
        extra = {name: getattr(primary, name) for name in (*PER_IMAGE, *_UNRELATED)}
        return replace(scores, **extra)

    def of(self, table: ScoreTable) -> ScoredCell:
        """Another table, seen alike."""
        return replace(self, table=table)


def measurements(
    cell: ScoredCell,
    strength: float,
    seed: int,
    null: RandomDirections = (),
    metrics: Sequence[EditMetric] | None = None,
) -> dict[str, Measurement]:
    """Every metric of per-image scores, and EPR+.

    Under the metric's name by the primary classifier, under `metric@classifier` by the others, of
    these only what is defined. The strength is one of the table's, the seed is of the resamples;
    metrics are by default all that are registered.
    """
    found = precise_measurements(cell, strength, seed)
    chosen = [METRICS.create(n) for n in METRICS.names()] if metrics is None else metrics
    for classifier in cell.classifiers:
        scores = cell.at(strength, classifier)
        own = {}
        for metric in chosen:
            name = metric.info.name
            purpose = metric.info.formerly or name
            estimate = evaluate(metric, scores, derive_seed(seed, "bootstrap", purpose))
            own[name] = Measurement.from_estimate(estimate, metric.info.unit)
        own[EPR_PLUS] = _epr_plus(cell, scores, classifier, seed, null)
        if classifier == cell.classifiers[0]:
            found |= own
        else:
            found |= {f"{n}@{classifier}": m for n, m in own.items() if m.status == "ok"}
    return found


def outcomes_at(cell: ScoredCell, strength: float) -> ImageOutcomes:
    """What became of each image at a strength of the table, by all its classifiers."""
    return image_outcomes([cell.at(strength, name) for name in cell.classifiers])


def response_of_table(validation: ScoredCell) -> dict[float, float]:
    """Strength > 0 → headline on the validation images."""
    found = {}
    for strength in sorted(s for s in validation.table.strengths if s > 0):
        outcomes = outcomes_at(validation, strength)
        if outcomes.eligible.any():
            found[strength] = float(outcomes.credit().sum() / outcomes.eligible.sum())
    return found


def response_of_curve(curve: Sequence[CurvePoint]) -> dict[float, float]:
    """The same of what was measured on validation images whose scores were not kept."""
    known = {p.strength: p.measurements.get(PRECISE_EDITS) for p in curve if p.strength > 0}
    return {s: m.value for s, m in sorted(known.items()) if m is not None and m.value is not None}


def best_strength(record: CellRecord, table: ScoreTable, response: Mapping[float, float]) -> float:
    """Of the strengths run on test images, the best one on validation images.

    The headline is linear between the strengths tried there, from 0 at strength 0, where nothing is
    edited; of equally good strengths the least. Where nothing was tried: the record's own.
    """
    tried = sorted(s for s in table.strengths if 0 < s <= max(response, default=0.0))
    if not tried:
        assert record.strength is not None
        return record.strength
    values = np.interp(tried, [0.0, *response], [0.0, *response.values()])
    return tried[int(np.argmax(values))]


def precise_measurements(cell: ScoredCell, strength: float, seed: int) -> dict[str, Measurement]:
    """The headline at a strength, by all classifiers, and at one tolerance alone."""
    panel = [cell.at(strength, name) for name in cell.classifiers]
    given = {PRECISE_EDITS_INFO.name: TOLERANCES, PRECISE_EDIT_RATE_INFO.name: (TOLERANCE,)}
    return {
        name: Measurement.from_estimate(
            evaluate_precise_edits(panel, derive_seed(seed, "bootstrap", name), tolerances), "share"
        )
        for name, tolerances in given.items()
    }


def _epr_plus(
    cell: ScoredCell, scores: EditScores, classifier: str, seed: int, null: RandomDirections
) -> Measurement:
    if not null:
        return Measurement.missing("no random direction was run", "ratio")
    estimate = evaluate_epr_plus(
        scores,
        [cell.of(table).at(strength, classifier) for table, strength in null],
        derive_seed(seed, "bootstrap", EPR_PLUS),
        same_images=null[0][0].image_ids == cell.table.image_ids,
    )
    return Measurement.from_estimate(estimate, "ratio")


def measure(
    stored: StoredCell,
    scales: ReferenceScales,
    null: RandomDirections = (),
    matched: StoredCell | None = None,
    metrics: Sequence[EditMetric] | None = None,
) -> RunRecord:
    """The numbers of one finished edit cell with scores.

    All are at the record's strength, but for precise edits: see `best_strength`. `null` is what
    random directions do to its concept, `matched` the control matched to it, if any; metrics are by
    default all that are registered.
    """
    record = stored.record
    assert (
        stored.scores is not None and record.strength is not None and record.attribute is not None
    )
    cell = ScoredCell(stored.scores, record.attribute, record.judges, scales)
    seed, strength = record.seed, record.strength
    if record.beside is not None:
        null = ()

    @cache
    def at_strength(strength: float) -> dict[str, Measurement]:
        """Levels share strengths, and the headline's is the cell's own: each is resampled once."""
        return measurements(cell, strength, seed, null, metrics)

    levels = tuple(
        LevelResult(
            **level.model_dump(),
            measurements={} if level.strength is None else at_strength(level.strength),
        )
        for level in record.levels
    )
    at = dict(at_strength(strength))
    headline = headline_level(levels)
    if headline is not None and headline.strength is None:
        at |= _not_reached(headline, at)
    if not record.control:
        at[OVER_RANDOM] = _over_random(cell, strength, seed, matched)
    if len(levels) > 1:
        at[PRECISION_AREA] = _area(cell, levels, record.full_effect, seed)
    curve = stored.curve
    if stored.validation is not None:
        validation = cell.of(stored.validation)
        curve = tuple(
            CurvePoint(strength=s, measurements=measurements(validation, s, seed, (), metrics))
            for s in stored.validation.strengths
        )
    best = best_strength(record, stored.scores, response_of_curve(curve))
    at |= precise_measurements(cell, best, seed)
    at[BEST_STRENGTH] = Measurement.of(best, 0, "strength")
    scores, names = cell.at(strength), record.attributes
    margins = attribute_shift_margin(scores)
    others = [name for name in names if name != record.attribute]
    infos = metric_infos() if metrics is None else [m.info for m in metrics]
    found = numbers_of(stored).model_copy(
        update={
            "measurements": at,
            "levels": levels,
            "curve": curve,
            "curve_on": "validation",
            "drift": _by_name(names, attribute_shift(scores)),
            "drift_margin": {} if margins is None else _by_name(names, margins),
            "metric_versions": {info.name: info.version for info in infos},
            "metric_identities": {i.name: metric_identity(i, others) for i in infos},
        }
    )
    return found.model_copy(update={"flags": flags_of(found)})


def numbers_of(stored: StoredCell) -> RunRecord:
    """The record of a cell as it is, without what is measured on scores."""
    record = stored.record
    own = RunRecord.model_fields.keys() & type(record).model_fields.keys() - {"levels"}
    fields = {name: getattr(record, name) for name in own}
    levels = tuple(LevelResult(**level.model_dump()) for level in record.levels)
    if record.scales is not None:
        fields["measurements"] = fields["measurements"] | {
            f"{classifier}.spread/{attribute}": Measurement.of(spread, unit="logit", n=0)
            for classifier, spreads in record.scales.spreads.items()
            for attribute, spread in zip(record.attributes, spreads, strict=True)
            if f"{classifier}.spread/{attribute}" not in fields["measurements"]
        }
    return RunRecord(**fields, levels=levels)


def _by_name(names: Sequence[str], values: Array) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _not_reached(headline: Level, at: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """EPR+ of a cell that did not reach the headline's effect: no number, by any classifier."""
    largest = f"largest effect {headline.largest:.3g} of {headline.goal:.3g} {headline.unit}"
    reason = f"{headline.status_in_words}: {largest}"
    return {
        name: Measurement.undefined(reason, m.n, m.unit)
        for name, m in at.items()
        if name.split("@")[0] == EPR_PLUS
    }


def _over_random(
    cell: ScoredCell, strength: float, seed: int, matched: StoredCell | None
) -> Measurement:
    """EPR over that of a random edit of equal norm, on the images of that control."""
    if matched is None or matched.scores is None or matched.record.strength != strength:
        return Measurement.missing("no random control was run beside it")
    estimate = evaluate_ratio(
        EPR_FLOORED,
        cell.of(cell.table.take(matched.scores.image_ids)).at(strength),
        cell.of(matched.scores).at(strength),
        derive_seed(seed, "bootstrap", OVER_RANDOM),
    )
    return Measurement.from_estimate(estimate, "ratio")


def _area(
    cell: ScoredCell, levels: Sequence[Level], full_effect: float | None, seed: int
) -> Measurement:
    """Area under precision versus effect over the levels of effect."""
    effects = [level for level in levels if level.name.startswith("effect_")]
    if not full_effect:
        return Measurement.undefined("the full effect is not known")
    estimate = precision_area(
        [level.goal / full_effect for level in effects],
        [
            cell.at(level.strength)
            if level.status == "reached" and level.strength is not None
            else None
            for level in effects
        ],
        derive_seed(seed, "bootstrap", PRECISION_AREA),
    )
    return Measurement.from_estimate(estimate, "share")


def flags_of(record: RunRecord) -> tuple[str, ...]:
    """What a reader should know before trusting an edit's numbers, sorted, as records name it."""
    at, headline = record.measurements, headline_level(record.levels)

    def value(name: str) -> float | None:
        return at[name].value if name in at else None

    found = set()
    if "pretrained" in record.artifacts:
        found.add("pretrained weights")
    if record.guided_by:
        found.add("guided by a scorer")
    if "epr_raw" in at and at["epr_raw"].status == "undefined":
        found.add("EPR undefined")
    wrong = value("wrong_way_rate")
    if (wrong is not None and wrong > 0.5) or (headline and headline.status == "wrong_way"):
        found.add("wrong way")
    if headline is not None and headline.strength is None:
        found.add(headline.status_in_words)
    if not record.monotone:
        found.add("non-monotone")
    change = value("signed_target_change") or 0.0
    if (
        headline is not None
        and (headline.status, headline.unit) == ("reached", "sd")
        and not headline.goal / OFF_GOAL <= change <= headline.goal * OFF_GOAL
    ):
        found.add("off the goal")
    for drifted in ("perceptual_drift", "identity_drift"):
        far = value(drifted)
        if far is not None and far > DRIFT_THRESHOLD:
            found.add(drifted.replace("_", " "))
    for classifier in record.judges[1:]:
        seen = value(f"signed_target_change@{classifier}")
        if change > 0 and seen is not None and seen < ONE_CLASSIFIER * change:
            found.add("one judge only")
    return tuple(sorted(found))
