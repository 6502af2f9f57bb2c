"""A scoreboard → standings, pairs, agreement of scorers and what the first rank rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from casl_bench.comparison.aggregate import Aggregate, aggregates
from casl_bench.comparison.agreement import kendall_tau
from casl_bench.comparison.cell_scores import Scoreboard
from casl_bench.comparison.fit_seeds import fit_spread
from casl_bench.comparison.paired import Difference, paired_differences
from casl_bench.comparison.ranks import rank_intervals
from casl_bench.comparison.resampling import Design, draw_scores
from casl_bench.comparison.sensitivity import sensitivity
from casl_bench.comparison.signed_log import signed_exp
from casl_bench.metrics.arrays import Array
from casl_bench.records.comparison import Agreement, Comparison, Pair, Sensitivity, Standing
from casl_bench.records.measurement import Measurement


def compare(
    board: Scoreboard,
    level: str,
    seed: int,
    *,
    fits: Mapping[str, Array],
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


def _fit_sd(scores: Array) -> Measurement:
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


def _agreements(board: Scoreboard, means: Mapping[str, float]) -> tuple[Agreement, ...]:
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


def _common_judges(board: Scoreboard) -> list[str]:
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
    board: Scoreboard, judge: str | None = None, without: tuple[str, str] | None = None
) -> dict[str, float]:
    """Method → mean over concepts, all images alike."""
    scores = board.scores(np.ones((1, len(board.images))), judge, without)[0]
    return dict(zip(board.methods, map(float, scores.mean(1)), strict=True))


def _sensitivity(board: Scoreboard, scores: Array) -> tuple[Sensitivity, ...]:
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
