"""A scoreboard → standings, pairs, agreement of scorers and what the first rank rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.analysis.significance import (
    Difference,
    kendall_tau,
    paired_differences,
    rank_intervals,
    sensitivity,
)
from casl_bench.analysis.uncertainty import (
    Design,
    ScoreDraws,
    draw_scores,
    noise_beyond,
    noise_here,
)
from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL, student_margin
from casl_bench.metrics.edit_scores import Array, EditScores, check_array
from casl_bench.metrics.epr_plus import null_epr, signed_epr, signed_exp, signed_log
from casl_bench.results.record import (
    Agreement,
    Comparison,
    Measurement,
    Pair,
    Sensitivity,
    Standing,
)

# The mean of each method over concepts, with an interval for these concepts or for others.


@dataclass(frozen=True)
class Aggregate:
    """One method's mean.

    Attributes:
        method: its name.
        value: weighted mean over concepts of its scores.
        low: lower end of the interval; None, with `high`, where there is none.
        high: upper end.
        level: nominal coverage.
        concepts: C behind the mean.
        images: distinct images behind it.
        reason: why there is no interval; None where there is one.
    """

    method: str
    value: float
    low: float | None
    high: float | None
    level: float
    concepts: int
    images: int
    reason: str | None = None


def aggregates(
    draws: ScoreDraws, *, generalise: bool = True, macro: bool = False, level: float = LEVEL
) -> tuple[Aggregate, ...]:
    """sum_c w_c s_mc of each method m, with w_c = 1/C or, macro, 1/(D C_d) for D data sets.

    Args:
        draws: scores as measured and under resampled images.
        generalise: the interval is for other concepts like these, too; otherwise for these very
            concepts, and images alone vary.
        macro: give each data set the same weight instead of each concept.
        level: nominal coverage, in (0, 1).

    Returns:
        One a method, in the order of `draws`. No interval with fewer than two images in a data set,
        where nothing varies or, if it generalises, with fewer than two concepts in a data set.

    Raises:
        InputError: if the level is outside (0, 1).
    Source: see `noise`.
    """
    weights = draws.design.weights(macro)
    noise_of = noise_beyond if generalise else noise_here
    found = []
    for m, method in enumerate(draws.methods):
        value = float(draws.scores[m] @ weights)
        noise = noise_of(draws.scores[m], draws.draws[:, m], draws.design, macro=macro)
        low, high = noise.interval(value, level) or (None, None)
        concepts, images = len(weights), sum(draws.design.images_of().values())
        found.append(Aggregate(method, value, low, high, level, concepts, images, noise.reason))
    return tuple(found)


# EPR+ of every method on every concept as a function of how images are weighted.


ConceptKey = tuple[str, str]
"""(data set, concept)."""


@dataclass(frozen=True)
class Edits:
    """One method on one concept, at equal effect.

    Attributes:
        image_ids: of the n test images, in the order of the scores.
        judged: judge → scores; empty where the effect was not reached.
    """

    image_ids: tuple[str, ...]
    judged: Mapping[str, EditScores] = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptScores:
    """All methods on one concept.

    Attributes:
        key: data set and concept.
        attributes: of the classifiers' columns.
        methods: method → its edits; every method has one.
        null: classifier → scores of random directions.
        null_image_ids: of the images of these.
    """

    key: ConceptKey
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
        self, weights: Array, judge: str | None = None, without: tuple[str, str] | None = None
    ) -> Array:
        """sign(x) log(1 + |x|) of x = EPR+; 0 where the effect was not reached.

        Args:
            weights: [R, I] >= 0, how often each image counts; normalised within a concept here.
            judge: by which classifier; default the one that decides.
            without: (data set, attribute) that is left out of the others there.

        Returns:
            [R, M, C]; not finite where no image of a concept has a weight, or where the random
            draws of a concept move nothing.
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
                if not edits.judged:
                    result[:, m, c] = np.where(np.isnan(own).any(1), np.nan, 0.0)
                    continue
                name = judge if judge is not None else next(iter(edits.judged))
                if name not in null:
                    draws = [_without(r, left_out) for r in concept.null[name]]
                    null[name] = null_epr(of_null, draws)
                scores = _without(edits.judged[name], left_out)
                # Over random directions that moved nothing there is no ratio: not finite.
                with np.errstate(divide="ignore", invalid="ignore"):
                    result[:, m, c] = signed_log(signed_epr(own, scores) / null[name])
        return result

    @property
    def defined(self) -> bool:
        """Whether every score is a number on all images: draws that move nothing leave none."""
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


# How much a method's number changes with the seed of its fit, images being the same.


@dataclass(frozen=True)
class FitSpread:
    """Of the mean over concepts, between fits.

    Attributes:
        mean: over fits.
        sd: standard deviation between fits, with n - 1; None with fewer than two.
        low: lower end of the interval of the mean; None, with `high`, with fewer than two fits or
            where all agree.
        high: upper end.
        level: nominal coverage.
        n: fits.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    level: float
    n: int


def fit_spread(scores: ArrayLike, *, level: float = LEVEL) -> FitSpread:
    """Mean over concepts of each fit, then mean, spread and Student's interval over fits.

    Args:
        scores: [F, C] of F fits on C concepts, on the same images, finite.
        level: nominal coverage, in (0, 1).

    Raises:
        InputError: without a fit or a concept, on NaN or infinity, or a level outside (0, 1).
    Source: Student 1908.
    """
    array = check_array("scores of fits", scores, 2)
    if array.size == 0:
        raise InputError("a spread between fits needs a fit and a concept")
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level}")
    means = array.mean(1)
    n, mean = len(means), float(means.mean())
    if n < 2:
        return FitSpread(mean, None, None, None, level, n)
    sd = float(means.std(ddof=1))
    if sd <= 1e-12 + 1e-9 * abs(mean):  # sums in another order differ in their last bits
        return FitSpread(mean, 0.0, None, None, level, n)
    half = float(student_margin(means, level))
    return FitSpread(mean, sd, mean - half, mean + half, level, n)


def compare(
    board: ScoreMatrix,
    level: str,
    seed: int,
    *,
    fits: Mapping[str, ArrayLike],
    wrong_way: Mapping[str, int],
    incomplete: Sequence[str] = (),
) -> Comparison:
    """All methods of a board at one level of effect.

    Images are resampled within their data set for all methods and concepts together; the random
    draws that EPR+ is divided by are common to all methods and stay as they are.

    Args:
        board: every method on every concept.
        level: at which its scores are.
        seed: of the resamples.
        fits: method → [F, C] scores of its fits.
        wrong_way: method → concepts in which it reached the opposite effect.
        incomplete: methods that are not on the board, as they have not run everything.

    Raises:
        InputError: if a score is not finite on all images.
    """
    design = Design(
        tuple(dataset for dataset, _ in board.images), tuple(c.key[0] for c in board.concepts)
    )
    draws = draw_scores(board.scores, board.methods, design, seed)
    beyond = {a.method: a for a in aggregates(draws)}
    here = {a.method: a for a in aggregates(draws, generalise=False)}
    pairs = paired_differences(draws)
    means = {name: a.value for name, a in beyond.items()}
    ranks = rank_intervals(means, pairs)
    standings = tuple(
        Standing(
            method=rank.method,
            epr_plus=_on_epr_scale(beyond[rank.method]),
            epr_plus_here=_on_epr_scale(here[rank.method]),
            rank_low=rank.low,
            rank_high=rank.high,
            group=rank.group,
            reached=sum(bool(c.methods[rank.method].judged) for c in board.concepts)
            - wrong_way[rank.method],
            wrong_way=wrong_way[rank.method],
            cells=len(board.concepts),
            fit_sd=_fit_sd(fits[rank.method]),
        )
        for rank in ranks
    )
    return Comparison(
        level=level,
        datasets=design.datasets,
        concepts=tuple(
            f"{dataset}/{concept}" for dataset, concept in (c.key for c in board.concepts)
        ),
        standings=standings,
        pairs=tuple(map(_pair, pairs)),
        agreements=_agreements(board, means),
        sensitivity=_sensitivity(board, draws.scores),
        incomplete=tuple(incomplete),
    )


def _on_epr_scale(found: Aggregate) -> Measurement:
    value = signed_exp(found.value)
    if found.low is None or found.high is None:
        return Measurement.of(value, found.images, "ratio")
    return Measurement(
        status="ok",
        value=value,
        low=signed_exp(found.low),
        high=signed_exp(found.high),
        level=found.level,
        n=found.images,
        unit="ratio",
    )


def _fit_sd(scores: ArrayLike) -> Measurement:
    spread = fit_spread(scores)
    if spread.sd is None:
        return Measurement.undefined("a single fit", spread.n, "log ratio")
    return Measurement.of(spread.sd, spread.n, "log ratio")


def _pair(found: Difference) -> Pair:
    difference = Measurement(
        status="ok",
        value=found.value,
        low=found.low,
        high=found.high,
        level=found.level,
        n=found.images,
        unit="log ratio",
    )
    return Pair(a=found.a, b=found.b, difference=difference, p=found.p, p_holm=found.p_holm)


def _agreements(board: ScoreMatrix, means: Mapping[str, float]) -> tuple[Agreement, ...]:
    """How each classifier that judges every method, and does not decide for all, orders them."""
    found = []
    decide = {
        next(iter(edits.judged))
        for concept in board.concepts
        for edits in concept.methods.values()
        if edits.judged
    }
    for judge in _common_judges(board):
        if decide == {judge}:
            continue
        scores = _means(board, judge=judge)
        order = sorted(scores, key=lambda name: (-scores[name], name))
        agreement = kendall_tau([means[n] for n in board.methods],
                                [scores[n] for n in board.methods])  # fmt: skip
        found.append(Agreement(scorer=judge, order=tuple(order), tau=agreement.tau, n=agreement.n))
    return tuple(found)


def _common_judges(board: ScoreMatrix) -> list[str]:
    """Classifiers that every null and every reached cell of the board has scores of."""
    names = dict.fromkeys(name for concept in board.concepts for name in concept.null)
    return [
        name
        for name in names
        if all(
            name in concept.null
            and all(not e.judged or name in e.judged for e in concept.methods.values())
            for concept in board.concepts
        )
    ]


def _means(
    board: ScoreMatrix, judge: str | None = None, without: tuple[str, str] | None = None
) -> dict[str, float]:
    """Method → mean over concepts, all images alike."""
    scores = board.scores(np.ones((1, len(board.images))), judge, without)[0]
    return dict(zip(board.methods, map(float, scores.mean(1)), strict=True))


def _sensitivity(board: ScoreMatrix, scores: Array) -> tuple[Sensitivity, ...]:
    """Leave-one-out over attributes, scorers, data sets and concepts, as far as there are two."""
    variants: dict[tuple[str, str], Array] = {}
    for dataset, attribute in dict.fromkeys(
        (c.key[0], a) for c in board.concepts for a in c.attributes
    ):
        means = _means(board, without=(dataset, attribute))
        variants["attribute", f"{dataset}/{attribute}"] = np.array(list(means.values()))
    judges = _common_judges(board)
    for judge in judges if len(judges) > 1 else ():
        # To leave one scorer out is to judge by the others.
        others = [_means(board, judge=j) for j in judges if j != judge]
        mean = [np.mean([scores_of[m] for scores_of in others]) for m in board.methods]
        variants["scorer", judge] = np.array(mean)
    keys = [c.key for c in board.concepts]
    datasets = dict.fromkeys(dataset for dataset, _ in keys)
    for left_out in datasets if len(datasets) > 1 else ():
        rest = [i for i, (dataset, _) in enumerate(keys) if dataset != left_out]
        variants["data set", left_out] = scores[:, rest].mean(1)
    for i, (dataset, concept) in enumerate(keys if len(keys) > 1 else ()):
        variants["concept", f"{dataset}/{concept}"] = np.delete(scores, i, axis=1).mean(1)
    found = sensitivity(scores.mean(1), variants)
    return tuple(
        Sensitivity(kind=k.kind, variants=k.variants, holds=k.holds, broken_by=k.broken_by)
        for k in found.kinds
    )
