"""Scores of methods → standings, pairs and agreement of scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.analysis.headline import PreciseEditMatrix
from casl_bench.analysis.significance import (
    concepts_needed,
    first_places,
    kendall_tau,
    paired_differences,
    rank_intervals,
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
from casl_bench.metrics.precise_edits import PRECISE_EDITS_INFO
from casl_bench.results.record import Agreement, Comparison, Measurement, Standing

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

    def scores(self, weights: Array, classifier: str | None = None) -> Array:
        """[R, M, C] signed logs of EPR+; 0 where the effect was not reached.

        Not finite where no image of a concept has a weight, or where its random directions move
        nothing.

        Args:
            weights: [R, I] >= 0, how often each image counts; normalised within a concept here.
            classifier: by which; default each method's primary one.
        """
        result = np.empty((len(weights), len(self.methods), len(self.concepts)))
        for c, concept in enumerate(self.concepts):
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
                    null[name] = null_epr(of_null, concept.null[name])
                scores = edits.scores[name]
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
    headline: PreciseEditMatrix,
    level: str,
    seed: int,
    *,
    fits: Mapping[str, ArrayLike],
    wrong_way: Mapping[str, int],
    agreements: Sequence[Agreement] = (),
    incomplete: Sequence[str] = (),
) -> Comparison:
    """All methods of two matrices: ranked by precise edits, with EPR+ at one effect beside.

    Images are resampled within their data set for all methods and concepts together; the random
    directions that EPR+ is divided by are common to all methods and stay as they are.

    Args:
        matrix: EPR+ of every method on every concept.
        headline: precise edits of the same ones.
        level: of effect, at which EPR+ is.
        seed: of the resamples.
        fits: method → [F, C] precise edits of its fits.
        wrong_way: method → number of concepts in which it reached the opposite effect.
        agreements: how single classifiers order the methods.
        incomplete: methods that are not in the matrix, as they have not run everything.

    Raises:
        InputError: if a score is not finite on all images.
    """
    scores = resample_scores(headline.scores, headline.methods, _design(headline), seed)
    beyond = {a.method: a for a in aggregates(scores)}
    here = {a.method: a for a in aggregates(scores, generalise=False)}
    design = _design(matrix)
    beside = resample_scores(matrix.scores, matrix.methods, design, seed)
    epr_beyond = {a.method: a for a in aggregates(beside)}
    epr_here = {a.method: a for a in aggregates(beside, generalise=False)}
    pairs = paired_differences(scores)
    images = sum(design.images_of().values())
    first = first_places(scores, seed)
    standings = tuple(
        Standing(
            method=rank.method,
            headline=_share(beyond[rank.method], images),
            headline_here=_share(here[rank.method], images),
            p_first=first[rank.method],
            epr_plus=_on_epr_scale(epr_beyond[rank.method], images),
            epr_plus_here=_on_epr_scale(epr_here[rank.method], images),
            rank_low=rank.low,
            rank_high=rank.high,
            group=rank.letters,
            reached=sum(bool(c.methods[rank.method].scores) for c in matrix.concepts)
            - wrong_way[rank.method],
            wrong_way=wrong_way[rank.method],
            cells=len(matrix.concepts),
            fit_sd=_fit_sd(fits[rank.method]),
        )
        for rank in rank_intervals({m: a.value for m, a in beyond.items()}, pairs)
    )
    return Comparison(
        level=level,
        headline=PRECISE_EDITS_INFO.name,
        concepts_needed=concepts_needed(scores),
        datasets=design.datasets,
        concepts=tuple(f"{dataset}/{concept}" for dataset, concept in headline.concepts),
        standings=standings,
        pairs=pairs,
        agreements=tuple(agreements),
        sensitivity=(),
        incomplete=tuple(incomplete),
    )


def _design(matrix: ScoreMatrix | PreciseEditMatrix) -> Design:
    keys = (
        [c.key for c in matrix.concepts] if isinstance(matrix, ScoreMatrix) else [*matrix.concepts]
    )
    return Design(
        tuple(dataset for dataset, _ in matrix.images), tuple(dataset for dataset, _ in keys)
    )


def _share(found: Aggregate, images: int) -> Measurement:
    """Ends of an interval of a share lie in [0, 1]."""
    low, high = (None if e is None else min(max(e, 0.0), 1.0) for e in (found.low, found.high))
    return Measurement(status="ok", value=found.value, low=low, high=high, n=images, unit="share")


def _on_epr_scale(found: Aggregate, images: int) -> Measurement:
    ends = (None if end is None else signed_exp(end) for end in (found.low, found.high))
    low, high = ends
    value = signed_exp(found.value)
    return Measurement(status="ok", value=value, low=low, high=high, n=images, unit="ratio")


def _fit_sd(scores: ArrayLike) -> Measurement:
    sd, fits = fit_sd(scores), len(np.asarray(scores))
    if sd is None:
        return Measurement.undefined("a single fit", fits, "share")
    return Measurement.of(sd, fits, "share")


def agreement(classifier: str, headline: PreciseEditMatrix, alone: PreciseEditMatrix) -> Agreement:
    """How one classifier alone orders the methods, against all classifiers together."""
    together, own = (
        dict(zip(m.methods, m.scores(np.ones((1, len(m.images))))[0].mean(1), strict=True))
        for m in (headline, alone)
    )
    order = sorted(own, key=lambda name: (-own[name], name))
    tau = kendall_tau([together[n] for n in order], [own[n] for n in order])
    return Agreement(scorer=classifier, order=tuple(order), tau=tau, n=len(order))
