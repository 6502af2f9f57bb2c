"""Scores of methods → standings, pairs, agreement of scorers and what the first rank rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.analysis.significance import (
    kendall_tau,
    paired_differences,
    rank_intervals,
    sensitivity,
)
from casl_bench.analysis.uncertainty import (
    Design,
    ResampledScores,
    noise_beyond,
    noise_here,
    resample_scores,
)
from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.epr_plus import null_epr, signed_epr, signed_exp, signed_log
from casl_bench.results.record import Agreement, Comparison, Measurement, Sensitivity, Standing

# The mean of each method over concepts, with an interval for these concepts or for others.


@dataclass(frozen=True)
class Aggregate:
    """One method's mean over concepts, with its 95 % interval or the reason why it has none."""

    method: str
    value: float
    low: float | None
    high: float | None
    reason: str | None = None


def aggregates(scores: ResampledScores, *, generalise: bool = True) -> tuple[Aggregate, ...]:
    """Mean over concepts of each method, in the order of `scores`.

    An interval that generalises is for other concepts like these, too; otherwise it is for these
    very concepts, and images alone vary. There is none with fewer than two images in a data set,
    where nothing varies or, if it generalises, with fewer than two concepts in a data set.
    """
    noise_of = noise_beyond if generalise else noise_here
    found = []
    for m, method in enumerate(scores.methods):
        value = float(scores.measured[m] @ scores.design.weights)
        noise = noise_of(scores.measured[m], scores.resampled[:, m], scores.design)
        low, high = noise.interval(value, LEVEL) or (None, None)
        found.append(Aggregate(method, value, low, high, noise.reason))
    return tuple(found)


# EPR+ of every method on every concept as a function of how images are weighted.


@dataclass(frozen=True)
class Edits:
    """One method on one concept, at equal effect.

    Attributes:
        image_ids: of the n test images, in the order of the scores.
        scores: classifier → scores, the primary one first; empty where the effect was not reached.
    """

    image_ids: tuple[str, ...]
    scores: Mapping[str, EditScores] = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptScores:
    """All methods on one concept, by data set and name, and what random directions do to it.

    `attributes` are those of the classifiers' columns, `null` the random directions' scores by each
    classifier.
    """

    key: tuple[str, str]
    attributes: tuple[str, ...]
    methods: Mapping[str, Edits]
    null: Mapping[str, Sequence[EditScores]]
    null_image_ids: tuple[str, ...]


class ScoreMatrix:
    """Signed logs of EPR+, methods by concepts.

    Args:
        concepts: C of them, each with the same M methods.

    Attributes:
        methods: M names, in the order of the scores.
        images: I distinct (data set, image id) pairs, in the order of the weights.

    Raises:
        InputError: if the methods differ between concepts, or there is no concept.
    """

    def __init__(self, concepts: Sequence[ConceptScores]) -> None:
        if not concepts:
            raise InputError("there is no concept to compare methods on")
        self.concepts = tuple(concepts)
        self.methods = tuple(concepts[0].methods)
        if any(set(c.methods) != set(self.methods) for c in concepts):
            raise InputError("concepts with different methods cannot be compared")
        places: dict[tuple[str, str], int] = {}
        for concept in concepts:
            used = [
                *(edits.image_ids for edits in concept.methods.values()),
                concept.null_image_ids,
            ]
            for image in (image for ids in used for image in ids):
                places.setdefault((concept.key[0], image), len(places))
        self.images = tuple(places)
        self._places = places

    def scores(
        self, weights: Array, classifier: str | None = None, without: tuple[str, str] | None = None
    ) -> Array:
        """[R, M, C] signed logs of EPR+; 0 where the effect was not reached.

        Not finite where no image of a concept has a weight, or where its random directions move
        nothing.

        Args:
            weights: [R, I] >= 0, how often each image counts; normalised within a concept here.
            classifier: by which; default each method's primary one.
            without: (data set, attribute) that is left out of the others there.
        """
        result = np.empty((len(weights), len(self.methods), len(self.concepts)))
        for c, concept in enumerate(self.concepts):
            left_out = None
            if without is not None and without[0] == concept.key[0]:
                left_out = concept.attributes.index(without[1])
            of_null = self._own(weights, concept.key[0], concept.null_image_ids)
            null: dict[str, Array] = {}
            for m, method in enumerate(self.methods):
                edits = concept.methods[method]
                own = self._own(weights, concept.key[0], edits.image_ids)
                if not edits.scores:
                    result[:, m, c] = np.where(np.isnan(own).any(1), np.nan, 0.0)
                    continue
                name = classifier if classifier is not None else next(iter(edits.scores))
                if name not in null:
                    random = [_without(r, left_out) for r in concept.null[name]]
                    null[name] = null_epr(of_null, random)
                scores = _without(edits.scores[name], left_out)
                # Over random directions that moved nothing there is no ratio: not finite.
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    result[:, m, c] = signed_log(signed_epr(own, scores) / null[name])
        return result

    @property
    def defined(self) -> bool:
        """Whether every score is a number on all images, as directions move anything at all."""
        return bool(np.isfinite(self.scores(np.ones((1, len(self.images))))).all())

    def _own(self, weights: Array, dataset: str, image_ids: Sequence[str]) -> Array:
        """[R, n] weights of a concept's images, of sum 1; NaN where all are 0."""
        index: NDArray[np.intp] = np.array([self._places[dataset, i] for i in image_ids])
        own = weights[:, index]
        with np.errstate(invalid="ignore"):
            normalised: Array = own / own.sum(1, keepdims=True)
        return normalised


def _without(scores: EditScores, column: int | None) -> EditScores:
    """The scores without an attribute's column; as they are where that is the target's."""
    if column is None or column == scores.target:
        return scores
    keep = [j for j in range(scores.base.shape[1]) if j != column]
    return EditScores(
        scores.source[:, keep],
        scores.base[:, keep],
        scores.edit[:, keep],
        keep.index(scores.target),
        scores.sign,
        scores.spread[keep],
    )


def fit_sd(scores: ArrayLike) -> float | None:
    """Standard deviation between F fits [F, C] of their means over concepts; None for a single fit.

    All fits are on the same images.
    """
    means = np.asarray(scores, dtype=np.float64).mean(1)
    if len(means) < 2:
        return None
    sd = float(means.std(ddof=1))
    # Sums in another order differ in their last bits.
    return 0.0 if sd <= 1e-12 + 1e-9 * abs(float(means.mean())) else sd


def compare(
    matrix: ScoreMatrix,
    level: str,
    seed: int,
    *,
    fits: Mapping[str, ArrayLike],
    wrong_way: Mapping[str, int],
    incomplete: Sequence[str] = (),
) -> Comparison:
    """All methods of a matrix at one level of effect.

    Images are resampled within their data set for all methods and concepts together; the random
    directions that EPR+ is divided by are common to all methods and stay as they are.

    Args:
        matrix: every method on every concept.
        level: at which its scores are.
        seed: of the resamples.
        fits: method → [F, C] scores of its fits.
        wrong_way: method → number of concepts in which it reached the opposite effect.
        incomplete: methods that are not in the matrix, as they have not run everything.

    Raises:
        InputError: if a score is not finite on all images.
    """
    design = Design(
        tuple(dataset for dataset, _ in matrix.images), tuple(c.key[0] for c in matrix.concepts)
    )
    scores = resample_scores(matrix.scores, matrix.methods, design, seed)
    beyond = {a.method: a for a in aggregates(scores)}
    here = {a.method: a for a in aggregates(scores, generalise=False)}
    pairs = paired_differences(scores)
    means = {name: a.value for name, a in beyond.items()}
    images = sum(design.images_of().values())
    standings = tuple(
        Standing(
            method=rank.method,
            epr_plus=_on_epr_scale(beyond[rank.method], images),
            epr_plus_here=_on_epr_scale(here[rank.method], images),
            rank_low=rank.low,
            rank_high=rank.high,
            group=rank.letters,
            reached=sum(bool(c.methods[rank.method].scores) for c in matrix.concepts)
            - wrong_way[rank.method],
            wrong_way=wrong_way[rank.method],
            cells=len(matrix.concepts),
            fit_sd=_fit_sd(fits[rank.method]),
        )
        for rank in rank_intervals(means, pairs)
    )
    return Comparison(
        level=level,
        datasets=design.datasets,
        concepts=tuple(f"{dataset}/{concept}" for dataset, concept in _keys(matrix)),
        standings=standings,
        pairs=pairs,
        agreements=_agreements(matrix, means),
        sensitivity=_sensitivity(matrix, scores.measured),
        incomplete=tuple(incomplete),
    )


def _keys(matrix: ScoreMatrix) -> list[tuple[str, str]]:
    return [concept.key for concept in matrix.concepts]


def _on_epr_scale(found: Aggregate, images: int) -> Measurement:
    ends = (None if end is None else signed_exp(end) for end in (found.low, found.high))
    low, high = ends
    value = signed_exp(found.value)
    return Measurement(status="ok", value=value, low=low, high=high, n=images, unit="ratio")


def _fit_sd(scores: ArrayLike) -> Measurement:
    sd, fits = fit_sd(scores), len(np.asarray(scores))
    if sd is None:
        return Measurement.undefined("a single fit", fits, "log ratio")
    return Measurement.of(sd, fits, "log ratio")


def _agreements(matrix: ScoreMatrix, means: Mapping[str, float]) -> tuple[Agreement, ...]:
    """How each classifier that scores every method, and is not primary for all, orders them."""
    found = []
    primary = {
        next(iter(edits.scores))
        for concept in matrix.concepts
        for edits in concept.methods.values()
        if edits.scores
    }
    for classifier in _common_classifiers(matrix):
        if primary == {classifier}:
            continue
        scores = _means(matrix, classifier)
        tau = kendall_tau([means[n] for n in matrix.methods], [scores[n] for n in matrix.methods])
        order = sorted(scores, key=lambda name: (-scores[name], name))
        found.append(Agreement(scorer=classifier, order=tuple(order), tau=tau, n=len(order)))
    return tuple(found)


def _common_classifiers(matrix: ScoreMatrix) -> list[str]:
    """Those that all random directions and every cell that reached the effect have scores of."""
    names = dict.fromkeys(name for concept in matrix.concepts for name in concept.null)
    return [
        name
        for name in names
        if all(
            name in concept.null
            and all(not e.scores or name in e.scores for e in concept.methods.values())
            for concept in matrix.concepts
        )
    ]


def _means(
    matrix: ScoreMatrix, classifier: str | None = None, without: tuple[str, str] | None = None
) -> dict[str, float]:
    """Method → mean over concepts, all images alike."""
    scores = matrix.scores(np.ones((1, len(matrix.images))), classifier, without)[0]
    return dict(zip(matrix.methods, map(float, scores.mean(1)), strict=True))


def _sensitivity(matrix: ScoreMatrix, scores: Array) -> tuple[Sensitivity, ...]:
    """Leave-one-out over attributes, scorers, data sets and concepts, as far as there are two."""
    variants: dict[tuple[str, str], Array] = {}
    for dataset, attribute in dict.fromkeys(
        (c.key[0], a) for c in matrix.concepts for a in c.attributes
    ):
        means = _means(matrix, without=(dataset, attribute))
        variants["attribute", f"{dataset}/{attribute}"] = np.array(list(means.values()))
    classifiers = _common_classifiers(matrix)
    for classifier in classifiers if len(classifiers) > 1 else ():
        # To leave one scorer out is to score by the others.
        others = [_means(matrix, other) for other in classifiers if other != classifier]
        mean = [np.mean([scores_of[m] for scores_of in others]) for m in matrix.methods]
        variants["scorer", classifier] = np.array(mean)
    keys = _keys(matrix)
    datasets = dict.fromkeys(dataset for dataset, _ in keys)
    for left_out in datasets if len(datasets) > 1 else ():
        rest = [i for i, (dataset, _) in enumerate(keys) if dataset != left_out]
        variants["data set", left_out] = scores[:, rest].mean(1)
    for i, (dataset, concept) in enumerate(keys if len(keys) > 1 else ()):
        variants["concept", f"{dataset}/{concept}"] = np.delete(scores, i, axis=1).mean(1)
    return sensitivity(scores.mean(1), variants)
