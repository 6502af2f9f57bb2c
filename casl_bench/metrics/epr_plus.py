"""EPR+, the headline: signed EPR at equal effect, over what random directions get.

Everything that decides the number is in this file: signed EPR of an edit, the same of random
directions, their ratio with its interval, and the scale on which it is averaged over concepts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast, overload

import numpy as np

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import RESAMPLES, percentile_interval, resampling_weights
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.metric import (
    BASELINE,
    FLOOR,
    OTHERS,
    SPREAD,
    EditMetric,
    Estimate,
    MetricInfo,
    no_others,
    register_info,
    register_metric,
    signed_ratio,
)

# Sums in another order differ in their last bits: attributes this close are equally damaged.
_TIE = 1e-9


def gain_column(scores: EditScores) -> Array:
    """[n, 1] change of the target in the direction asked for, in sd."""
    change = (scores.edit - scores.base)[:, [scores.target]]
    gain: Array = scores.sign * change / scores.spread[scores.target]
    return gain


def _damage_columns(scores: EditScores) -> Array:
    """[n, A - 1] absolute changes of the other attributes by the edit, in sd."""
    return _absolute_change(scores, scores.edit, scores.base)


def _floor_columns(scores: EditScores) -> Array:
    """[n, A - 1] absolute changes of the other attributes by inversion alone, in sd."""
    return _absolute_change(scores, scores.base, scores.source)


def _absolute_change(scores: EditScores, after: Array, before: Array) -> Array:
    rest = scores.others
    change: Array = np.abs(after - before)[:, rest] / scores.spread[rest]
    return change


def _floored_columns(target: Array, scores: EditScores) -> Array:
    """[n, 3]: a column of the target's, the others' mean change, and the mean of their floors."""
    others = [of(scores).mean(1, keepdims=True) for of in (_damage_columns, _floor_columns)]
    return np.concatenate([target, *others], axis=1)


def _floored_ratio(means: Array) -> Array:
    return signed_ratio(means[..., 0], np.maximum(means[..., 1], means[..., 2]))


def _worst_columns(scores: EditScores) -> Array:
    parts = (gain_column(scores), _damage_columns(scores), _floor_columns(scores))
    return np.concatenate(parts, axis=1)


def _worst_ratio(means: Array) -> Array:
    damage, floors = np.split(means[..., 1:], 2, axis=-1)
    worst = damage.max(-1, keepdims=True)
    floor = np.where(damage >= worst * (1 - _TIE), floors, 0).max(-1)
    return signed_ratio(means[..., 0], np.maximum(worst[..., 0], floor))


def _nothing_to_divide_by(scores: EditScores) -> str | None:
    if (reason := no_others(scores)) is not None:
        return reason
    if gain_column(scores).mean() == 0 or _damage_columns(scores).any():
        return None
    if _floor_columns(scores).any():
        return None
    return "no other attribute moved, by the edit or by inversion: there is nothing to divide by"


EPR_SIGNED = register_metric(
    EditMetric(
        MetricInfo(
            name="epr_signed",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(None, None),
            title="EPR, signed",
            scale_free=True,
            depends_on=(OTHERS, BASELINE, FLOOR, SPREAD),
        ),
        lambda scores: _floored_columns(gain_column(scores), scores),
        _floored_ratio,
        _nothing_to_divide_by,
    )
)
"""EPR+ before random: s * mean_i d_it / max(mean_{j != t} mean_i |d_ij|, floor).

d_ij = (edit_ij - base_ij) / spread_j is the change of attribute j's logit on image i, base its
reconstruction, spread the logit's standard deviation over real source images; t is the target,
s = +1 where it is to be turned on, -1 where off. floor = mean_{j != t} mean_i |base_ij -
source_ij| / spread_j is what inversion alone moves. Negative where the edit goes the wrong way, 0
where the target does not move; undefined where only the target moved and the floor is 0.
Source: ours, from eq. 14 of CASL.
"""
WORST_ATTRIBUTE_EPR = register_metric(
    EditMetric(
        replace(
            EPR_SIGNED.info,
            name="worst_attribute_epr",
            version=1,
            title="EPR over the worst attribute",
        ),
        _worst_columns,
        _worst_ratio,
        _nothing_to_divide_by,
    )
)
"""No damage averaged away: s * mean_i d_it / max(max_{j != t} mean_i |d_ij|, floor of it).

As `EPR_SIGNED`, over the attribute that the edit damages most and that attribute's own floor
mean_i |base_ij - source_ij| / spread_j; of attributes damaged equally, the largest floor. A largest
mean of few images lies somewhat above the true one, so the ratio errs towards 0.
"""


EPR_PLUS_INFO = register_info(
    replace(
        EPR_SIGNED.info,
        name="epr_plus",
        version=1,
        title="EPR+",
        depends_on=(*EPR_SIGNED.info.depends_on, "reference: random directions of equal effect"),
    )
)


def signed_epr(weights: Array, scores: EditScores) -> Array:
    """[R] `EPR_SIGNED` under R weightings [R, n] of n images, each of sum 1."""
    return _floored_ratio(weights @ EPR_SIGNED.per_image(scores))


def null_epr(weights: Array, random: Sequence[EditScores], errors: Array | float = 0.0) -> Array:
    """[R] prod_k E_k^(1/K) of K random directions under R weightings of the images.

    E_k = mean_i |d_it| / max(mean_{j != t} mean_i |d_ij|, floor), `EPR_SIGNED` of direction k
    without its sign: which way such a direction moves the target is chance, how far it moves it for
    what it does elsewhere is the null. The mean is geometric because these are ratios: a direction
    that is twice as precise and one that is half as precise cancel.

    Args:
        weights: [R, n] >= 0, each row of sum 1.
        random: K >= 1 directions on the same n images, each as strong in its effect as what it is
            compared with: at unequal effect the ratio compares strengths.
        errors: [R] by how many standard errors over the K directions the log is moved.

    Returns:
        0 or not finite where a direction moves nothing.
    Source: ours.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logs = np.log(
            np.stack([_floored_ratio(weights @ _unsigned_columns(r)) for r in random], axis=-1)
        )
        k = logs.shape[-1]
        error = logs.std(-1, ddof=1) / math.sqrt(k) if k > 1 else 0.0
        return cast(Array, np.exp(logs.mean(-1) + errors * error))


def _no_null(random: Sequence[EditScores]) -> str | None:
    """Why random directions give no `null_epr`; None where they do."""
    if len({len(r) for r in random}) != 1:
        raise InputError("all random directions need the same images")
    if len(random[0]) == 0:
        return "no image"
    if (reason := no_others(random[0])) is not None:
        return reason
    values = [float(_floored_ratio(_unsigned_columns(r).mean(0))) for r in random]
    if not np.isfinite(values).all():
        return "a random direction moved nothing but the target"
    return "a random direction did not move the target" if 0 in values else None


def epr_plus(scores: EditScores, random: Sequence[EditScores]) -> float | None:
    """EPR_SIGNED(edit) / null_epr(random directions): how much more precise than chance.

    1 is a random direction that happens to go the right way, negative is the wrong way. None where
    either is undefined. Arguments as of `evaluate_epr_plus`, all on the same images.

    Raises:
        InputError: without a direction, or where scores differ in images, target or spread.
    Source: ours.
    """
    return evaluate_epr_plus(scores, random, 0, resamples=0).value


def evaluate_epr_plus(
    scores: EditScores,
    random: Sequence[EditScores],
    seed: int,
    *,
    same_images: bool = True,
    resamples: int = RESAMPLES,
) -> Estimate:
    """`epr_plus` with its 95 % percentile-bootstrap interval, which needs two images.

    Images are resampled for edit and random directions together where these are of the same images,
    else each for itself. Other directions might have been sampled, too: with K >= 2 of them the log
    of their geometric mean varies by Student's t with K - 1 degrees of freedom, times its standard
    error over the directions. (Resampling the K directions, as images, covers 63 to 90 % instead of
    95 % at K = 2 to 8.) With two directions the interval is very wide; with one, it holds for that
    direction only.

    Args:
        scores: n images.
        random: K >= 1 random directions, as strong in their effect, all on the same images.
        seed: of the resamples.
        same_images: whether these are the n images of the edit, in the same order.
        resamples: how many.

    Raises:
        InputError: as `epr_plus`.
    Source: ours.
    """
    _check_target(scores, random)
    n, no_null = len(scores), _no_null(random)
    if n == 0 or (reason := EPR_SIGNED.undefined(scores)) is not None:
        return Estimate(None, n, reason="no image" if n == 0 else reason)
    if no_null is not None:
        return Estimate(None, n, reason=no_null)
    if same_images and len(random[0]) != n:
        raise InputError(f"the same images are needed, got {n} and {len(random[0])}")

    def ratio(own: Array, of_null: Array, errors: Array | float) -> Array:
        below = null_epr(of_null, random, errors)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # not finite: refused
            return signed_epr(own, scores) / below

    m = len(random[0])
    value = float(ratio(np.full((1, n), 1 / n), np.full((1, m), 1 / m), 0.0)[0])
    if not math.isfinite(value):
        return Estimate(None, n, reason="the value is not finite")
    interval = None
    if n >= 2 and resamples:
        own = of_null = resampling_weights(n, resamples, seed)
        if not same_images:
            # Another stream: the two sets of images vary independently.
            of_null = resampling_weights(m, resamples, seed ^ 1)
        # Independent of the images' resamples, which the plain seed gives.
        k = len(random)
        errors = np.random.default_rng([seed, k]).standard_t(max(k - 1, 1), size=resamples)
        interval = percentile_interval(ratio(own, of_null, errors), n=n)
    low, high = interval or (None, None)
    return Estimate(value, n, low, high)


def _check_target(scores: EditScores, random: Sequence[EditScores]) -> None:
    """Refuse scores that are not of the same target, attributes and spread."""
    if not random:
        raise InputError("a random direction is needed")
    for other in random:
        if other.base.shape[1:] != scores.base.shape[1:] or other.target != scores.target:
            raise InputError("edit and random directions need the same attributes and target")
        if not np.array_equal(other.spread, scores.spread):
            raise InputError("edit and random directions need the same spread")


def _unsigned_columns(scores: EditScores) -> Array:
    return _floored_columns(np.abs(gain_column(scores)), scores)


# The scale on which EPR+ of several concepts is averaged: logarithmic, through zero, signed.


@overload
def signed_log(x: float) -> float: ...
@overload
def signed_log(x: Array) -> Array: ...
def signed_log(x: float | Array) -> float | Array:
    """g(x) = sign(x) log(1 + |x|).

    About x near 0, about log(x) for large x; NaN stays NaN. Ratios average on a logarithmic scale,
    but a logarithm has no place for 0 or the wrong way, and a cell without a number would have to
    be left out of the mean: a method that fails on hard concepts would then win. Here a cell that
    did not reach the effect is 0, so wrong way < not reached < any positive value.

    Source: ours; symmetric logarithms go back to Tukey's started logarithm, log(x + 1).
    """
    return cast("float | Array", np.sign(x) * np.log1p(np.abs(x)))


@overload
def signed_exp(y: float) -> float: ...
@overload
def signed_exp(y: Array) -> Array: ...
def signed_exp(y: float | Array) -> float | Array:
    """The inverse of `signed_log`: sign(y) (exp(|y|) - 1), within the range of a float."""
    most = np.log(np.finfo(float).max)
    return cast("float | Array", np.sign(y) * np.expm1(np.minimum(np.abs(y), most)))
