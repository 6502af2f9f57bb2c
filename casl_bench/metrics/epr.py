"""Editing precision ratio: how far the target moves for each unit that the others move.

The published number is blind to direction, grows with strength over a fixed floor, and depends on
each logit's scale and on the list of others. epr_signed.py and epr_plus.py mend that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL, RESAMPLES, percentile_interval, resampling_weights
from casl_bench.metrics.metric import (
    BASELINE,
    FLOOR,
    OTHERS,
    SPREAD,
    EditMetric,
    Estimate,
    MetricInfo,
    no_others,
    register_metric,
)
from casl_bench.results.score_table import Array, EditScores, check_array

EPS = 1e-8


def epr_raw(
    base_logits: ArrayLike,
    edit_logits: ArrayLike,
    target: int,
    others: Sequence[int] | None = None,
    eps: float = EPS,
) -> float:
    """mean_i |d_t(i)| / (mean_{j != t} mean_i |d_j(i)| + eps), with d_j = edit_j - base_j.

    Args:
        base_logits: [n, A], n >= 1, the baseline: reconstructions, not source images, so that the
            inversion's error is no part of the edit's.
        edit_logits: [n, A].
        target: column of the edited attribute.
        others: columns in the denominator; default all but the target. They are part of what the
            number means.
        eps: added to the denominator.

    Returns:
        A ratio >= 0; 0 where nothing moved.

    Raises:
        InputError: on other shapes, NaN or infinity, no image, or no other attribute.
    Source: CASL (arXiv 2601.15441), eq. 14.
    """
    columns = _columns(base_logits, edit_logits, target, others)
    return float(_ratio(columns.mean(0), eps))


def epr_std(
    base_logits: ArrayLike,
    edit_logits: ArrayLike,
    target: int,
    spread: ArrayLike,
    others: Sequence[int] | None = None,
    eps: float = EPS,
) -> float:
    """`epr_raw` of logits divided by their spread: unchanged when a classifier's logit is rescaled.

    Args:
        base_logits: [n, A].
        edit_logits: [n, A].
        target: column of the edited attribute.
        spread: [A] standard deviation of each logit over real source images, > 0.
        others: columns in the denominator; default all but the target.
        eps: added to the denominator.

    Returns:
        A ratio >= 0.

    Raises:
        InputError: as `epr_raw`, and on a spread that is not positive.
    Source: ours, from eq. 14.
    """
    scale = check_spread(spread, np.asarray(base_logits).shape[-1])
    return epr_raw(
        np.asarray(base_logits) / scale, np.asarray(edit_logits) / scale, target, others, eps
    )


def noise_floor(
    source_logits: ArrayLike,
    reconstruction_logits: ArrayLike,
    target: int,
    others: Sequence[int] | None = None,
) -> float:
    """mean_{j != t} mean_i |reconstruction_j - source_j|: what inversion alone moves.

    An edit whose others move no more than this is not resolved: its EPR divides by noise.

    Args:
        source_logits: [n, A].
        reconstruction_logits: [n, A].
        target: column of the edited attribute.
        others: columns; default all but the target.

    Returns:
        In the unit of the logits, >= 0.

    Raises:
        InputError: as `epr_raw`.
    Source: ours.
    """
    return float(_columns(source_logits, reconstruction_logits, target, others)[:, 1].mean())


def check_spread(spread: ArrayLike, count: int) -> Array:
    """The spread as float64 [count]. Raises InputError unless all are finite and positive."""
    scale = check_array("spread", spread, 1, (count,))
    if not (scale > 0).all():
        raise InputError("every attribute's spread must be positive")
    return scale


def _columns(
    base: ArrayLike, edit: ArrayLike, target: int, others: Sequence[int] | None = None
) -> Array:
    """[n, 2]: the target's absolute change, and the mean of the others'."""
    base = check_array("base logits", base, 2)
    edit = check_array("edit logits", edit, 2, base.shape)
    n, attributes = base.shape
    if n == 0:
        raise InputError("EPR needs at least one image")
    if not 0 <= target < attributes:
        raise InputError(f"target {target} is not one of {attributes} attributes")
    rest = [j for j in range(attributes) if j != target] if others is None else list(others)
    if not rest:
        raise InputError("EPR needs an attribute other than the target")
    if target in rest or len(set(rest)) != len(rest) or not set(rest) <= set(range(attributes)):
        raise InputError(f"others {rest} must be distinct attributes without the target {target}")
    change = np.abs(edit - base)
    return np.stack([change[:, target], change[:, rest].mean(1)], axis=1)


def _ratio(means: Array, eps: float = EPS) -> Array:
    return means[..., 0] / (means[..., 1] + eps)


def _raw_columns(scores: EditScores) -> Array:
    return _columns(scores.base, scores.edit, scores.target)


def _std_columns(scores: EditScores) -> Array:
    return _columns(scores.base / scores.spread, scores.edit / scores.spread, scores.target)


def _floored_columns(scores: EditScores) -> Array:
    noise = _columns(scores.source, scores.base, scores.target)[:, 1:]
    return np.concatenate([_raw_columns(scores), noise], axis=1)


def _floored_ratio(means: Array) -> Array:
    target, others, floor = means[..., 0], means[..., 1], means[..., 2]
    # x / 0 where nothing else moved and inversion loses nothing: not finite, hence undefined.
    with np.errstate(invalid="ignore", divide="ignore"):
        return target / np.maximum(others, floor)


def _below_floor(scores: EditScores) -> str | None:
    return no_others(scores) or _compare(scores.source, scores.base, scores.edit, scores.target)


def _below_floor_std(scores: EditScores) -> str | None:
    source, base, edit = (x / scores.spread for x in (scores.source, scores.base, scores.edit))
    return no_others(scores) or _compare(source, base, edit, scores.target)


def _compare(source: Array, base: Array, edit: Array, target: int) -> str | None:
    floor = noise_floor(source, base, target)
    others = float(_columns(base, edit, target)[:, 1].mean())
    if others > floor:
        return None
    return (
        f"below the noise floor: other attributes moved by {others:.3g}, "
        f"reconstruction alone moves them by {floor:.3g}"
    )


EPR_RAW = register_metric(
    EditMetric(
        MetricInfo(
            name="epr_raw",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(0, None),
            title="EPR",
            source="CASL (arXiv 2601.15441), eq. 14",
            depends_on=(OTHERS, BASELINE, FLOOR),
        ),
        _raw_columns,
        _ratio,
        _below_floor,
    )
)
EPR_STD = register_metric(
    EditMetric(
        MetricInfo(
            name="epr_std",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(0, None),
            title="EPR, logits standardised",
            scale_free=True,
            depends_on=(OTHERS, BASELINE, FLOOR, SPREAD),
        ),
        _std_columns,
        _ratio,
        _below_floor_std,
    )
)
EPR_FLOORED = register_metric(
    EditMetric(
        # EPR with the noise floor as the least denominator: mean_i |Δ_T| / max(N, floor), where
        # N = mean_{j != T} mean_i |Δ_j| against the reconstruction and the floor is the same mean
        # between source and reconstruction. Never above EPR, equal to it above the floor, and
        # defined where EPR would divide by less than inversion alone moves.
        MetricInfo(
            name="epr_floored",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(0, None),
            title="EPR, denominator at least the noise floor",
            depends_on=(OTHERS, BASELINE, FLOOR),
        ),
        _floored_columns,
        _floored_ratio,
        no_others,
    )
)


# EPR that knows the direction asked for and never divides by less than inversion moves.


# Sums in another order differ in their last bits: attributes this close are equally damaged.
_TIE = 1e-9


def epr_signed(scores: EditScores) -> float | None:
    """EPR+ before random: s * mean_i d_it / max(mean_{j != t} mean_i |d_ij|, floor).

    d_ij = (edit_ij - base_ij) / spread_j is the change of attribute j's logit on image i, base its
    reconstruction, spread the logit's standard deviation over real source images; t is the target,
    s = +1 where it is to be turned on, -1 where off. floor = mean_{j != t} mean_i |base_ij -
    source_ij| / spread_j is what inversion alone moves.

    Args:
        scores: n >= 1 images, A >= 2 attributes.

    Returns:
        A ratio, negative where the edit goes the wrong way, 0 where the target does not move; None
        where only the target moved and the floor is 0, and where there is no other attribute.
    Source: ours, from eq. 14 of CASL.
    """
    return EPR_SIGNED.value(scores)


def worst_attribute_epr(scores: EditScores) -> float | None:
    """No damage averaged away: s * mean_i d_it / max(max_{j != t} mean_i |d_ij|, floor of it).

    As `epr_signed`, over the attribute that the edit damages most (`worst_attribute`) and that
    attribute's own floor mean_i |base_ij - source_ij| / spread_j; of attributes damaged equally,
    the largest floor. A largest mean of few images lies somewhat above the true one, so the ratio
    errs towards 0.

    Args:
        scores: n >= 1 images, A >= 2 attributes.

    Returns:
        A ratio whose sign and undefined cases are `epr_signed`'s; where no floor is in play, at
        most as far from 0.
    Source: ours.
    """
    return WORST_ATTRIBUTE_EPR.value(scores)


def worst_attribute(scores: EditScores) -> int:
    """The column j != t with the largest mean_i |d_ij|; the first of equals.

    Raises:
        InputError: without any image, or any attribute but the target.
    """
    reason = no_others(scores) if len(scores) else "the worst attribute needs an image"
    if reason is not None:
        raise InputError(reason)
    damage = damage_columns(scores).mean(0)
    return scores.others[int(np.argmax(damage))]


def signed_ratio(target: Array, others: Array) -> Array:
    """The ratio of the two; 0 where the target did not move, NaN where it did and nothing else."""
    ratio = np.where(target == 0, 0.0, np.nan)
    with np.errstate(over="ignore"):  # infinity, refused by whoever makes an estimate of it
        return cast(Array, np.divide(target, others, out=ratio, where=others > 0))


def gain_column(scores: EditScores) -> Array:
    """[n, 1] change of the target in the direction asked for, in sd."""
    change = (scores.edit - scores.base)[:, [scores.target]]
    gain: Array = scores.sign * change / scores.spread[scores.target]
    return gain


def damage_columns(scores: EditScores) -> Array:
    """[n, A - 1] absolute changes of the other attributes by the edit, in sd."""
    return _absolute_change(scores, scores.edit, scores.base)


def floor_columns(scores: EditScores) -> Array:
    """[n, A - 1] absolute changes of the other attributes by inversion alone, in sd."""
    return _absolute_change(scores, scores.base, scores.source)


def _absolute_change(scores: EditScores, after: Array, before: Array) -> Array:
    rest = scores.others
    change: Array = np.abs(after - before)[:, rest] / scores.spread[rest]
    return change


def floored_columns(target: Array, scores: EditScores) -> Array:
    """[n, 3]: a column of the target's, the others' mean change, and the mean of their floors."""
    others = [columns(scores).mean(1, keepdims=True) for columns in (damage_columns, floor_columns)]
    return np.concatenate([target, *others], axis=1)


def floored_ratio(means: Array) -> Array:
    """`combine` of `floored_columns`: [..., 3] → [...]."""
    return signed_ratio(means[..., 0], np.maximum(means[..., 1], means[..., 2]))


def _worst_columns(scores: EditScores) -> Array:
    parts = (gain_column(scores), damage_columns(scores), floor_columns(scores))
    return np.concatenate(parts, axis=1)


def _worst_ratio(means: Array) -> Array:
    damage, floors = np.split(means[..., 1:], 2, axis=-1)
    worst = damage.max(-1, keepdims=True)
    floor = np.where(damage >= worst * (1 - _TIE), floors, 0).max(-1)
    return signed_ratio(means[..., 0], np.maximum(worst[..., 0], floor))


def _nothing_to_divide_by(scores: EditScores) -> str | None:
    if (reason := no_others(scores)) is not None:
        return reason
    if gain_column(scores).mean() == 0 or damage_columns(scores).any():
        return None
    if floor_columns(scores).any():
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
        lambda scores: floored_columns(gain_column(scores), scores),
        floored_ratio,
        _nothing_to_divide_by,
    )
)
WORST_ATTRIBUTE_EPR = register_metric(
    EditMetric(
        MetricInfo(
            name="worst_attribute_epr",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(None, None),
            title="EPR over the worst attribute",
            scale_free=True,
            depends_on=(OTHERS, BASELINE, FLOOR, SPREAD),
        ),
        _worst_columns,
        _worst_ratio,
        _nothing_to_divide_by,
    )
)


# EPR+, the headline: signed EPR in units of what a random direction of equal effect gets.


EPR_PLUS_INFO = MetricInfo(
    name="epr_plus",
    version=1,
    higher_is_better=True,
    unit="ratio",
    bounds=(None, None),
    title="EPR+",
    scale_free=True,
    depends_on=(OTHERS, BASELINE, FLOOR, SPREAD, "reference: random directions of equal effect"),
)


@dataclass(frozen=True)
class RandomEpr:
    """What random directions get.

    Attributes:
        draws: K unsigned EPRs, one a direction; None where one is undefined.
        value: their geometric mean, > 0; None where a draw is undefined or 0.
        reason: why there is no value; None where there is one.
    """

    draws: tuple[float | None, ...]
    value: float | None
    reason: str | None = None

    @property
    def k(self) -> int:
        """How many directions were drawn."""
        return len(self.draws)


def random_epr(random: Sequence[EditScores]) -> RandomEpr:
    """prod_k E_k^(1/K), E_k = mean_i |d_it| / max(mean_{j != t} mean_i |d_ij|, floor) of draw k.

    `epr_signed` of a random direction without its sign: which way such a direction moves the target
    is chance, how far it moves it for what it does elsewhere is the null. Symbols as there. The
    mean is geometric because these are ratios: a draw that is twice as precise and one that is half
    as precise cancel.

    Args:
        random: K >= 1 draws on the same n images, each as strong in its effect as what it is
            compared with: at unequal effect the ratio compares strengths.

    Raises:
        InputError: without a draw, or where they differ in images, target or spread.
    Source: ours.
    """
    _check_draws(random)
    if len(random[0]) == 0:
        return RandomEpr((None,) * len(random), None, "no image")
    if (reason := no_others(random[0])) is not None:
        return RandomEpr((None,) * len(random), None, reason)
    values = [float(floored_ratio(_unsigned_columns(r).mean(0))) for r in random]
    draws = tuple(v if math.isfinite(v) else None for v in values)
    if None in draws:
        return RandomEpr(draws, None, "a random direction moved nothing but the target")
    if 0 in values:
        return RandomEpr(draws, None, "a random direction did not move the target")
    return RandomEpr(draws, float(np.exp(np.log(values).mean())))


def epr_plus(scores: EditScores, random: Sequence[EditScores]) -> float | None:
    """epr_signed(edit) / random_epr(random directions): how much more precise than chance.

    1 is a random direction that happens to go the right way, negative is the wrong way.

    Args:
        scores: n images.
        random: K >= 1 random directions on the same images, as strong in their effect.

    Returns:
        A ratio; None where `epr_signed` or `random_epr` is undefined.

    Raises:
        InputError: as `random_epr`, and where the scores differ from the draws in images, target or
            spread.
    Source: ours.
    """
    return evaluate_epr_plus(scores, random, 0, resamples=0).value


def evaluate_epr_plus(
    scores: EditScores,
    random: Sequence[EditScores],
    seed: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """`epr_plus` with its percentile-bootstrap interval.

    Images are resampled for edit and random directions together. Other directions might have been
    drawn, too: with K >= 2 draws the log of their geometric mean varies by Student's t with K - 1
    degrees of freedom, times its standard error over the draws. (Drawing again from K draws, as
    from images, covers 63 to 90 % instead of 95 % at K = 2 to 8.) Two draws tell next to nothing
    and the interval says so; with one, it holds for that direction only.

    Args:
        scores: n images.
        random: K >= 1 random directions on the same images, as strong in their effect.
        seed: of the resamples.
        resamples: how many.
        level: nominal coverage, in (0, 1).

    Returns:
        The estimate; without an interval where there are fewer than two images.

    Raises:
        InputError: as `epr_plus`.
    Source: ours.
    """
    _check_draws([scores, *random[:1]])
    n, null = len(scores), random_epr(random)
    if n == 0 or (reason := EPR_SIGNED.undefined(scores)) is not None:
        return Estimate(None, n, level=level, reason="no image" if n == 0 else reason)
    if null.value is None:
        return Estimate(None, n, level=level, reason=null.reason)
    columns = EPR_SIGNED.per_image(scores)
    references = [_unsigned_columns(r) for r in random]

    def ratio(images: Array, errors: Array) -> Array:
        below = np.stack([floored_ratio(images @ r) for r in references], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # not finite: refused
            return floored_ratio(images @ columns) / _geometric_mean(below, errors)

    value = float(ratio(np.full(n, 1 / n), np.zeros(())))
    if not math.isfinite(value):
        return Estimate(None, n, level=level, reason="the value is not finite")
    interval = None
    if n >= 2 and resamples:
        images = resampling_weights(n, resamples, seed)
        # Independent of the images' draws, which the plain seed gives.
        rng = np.random.default_rng([seed, null.k])
        errors = rng.standard_t(max(null.k - 1, 1), size=resamples)
        interval = percentile_interval(ratio(images, errors), level, n=n)
    low, high = interval or (None, None)
    return Estimate(value, n, low, high, level)


def _check_draws(draws: Sequence[EditScores]) -> None:
    """Refuse scores that are not of the same number of images, target and spread."""
    if not draws:
        raise InputError("a random direction is needed")
    first = draws[0]
    for other in draws[1:]:
        if other.base.shape != first.base.shape or other.target != first.target:
            raise InputError("edit and random directions need the same images and target")
        if not np.array_equal(other.spread, first.spread):
            raise InputError("edit and random directions need the same spread")


def _unsigned_columns(scores: EditScores) -> Array:
    return floored_columns(np.abs(gain_column(scores)), scores)


def _geometric_mean(draws: Array, errors: Array) -> Array:
    """Exponential of the mean log over the last axis, moved by `errors` of its standard errors."""
    logs = np.log(draws)
    k = logs.shape[-1]
    error = logs.std(-1, ddof=1) / math.sqrt(k) if k > 1 else 0.0
    return cast(Array, np.exp(logs.mean(-1) + errors * error))


# EPR without a classifier: the changes of the factors that an image was drawn from.


def factor_epr(scores: EditScores) -> float | None:
    """`epr_signed` of known factors: s * mean_i f_it / mean_i mean_{k != t} |f_ik|.

    f_ik is the change of factor k from image i's reconstruction to its edit, as a regressor of the
    known factors reads it, each factor in its own standard deviations; s = +1 where the target is
    to be turned on, -1 where off. The others are all factors but the target, those that no
    classifier names too. There is no floor: a regressor never reads two images as quite the same.

    Args:
        scores: with `factor_target` (f_it) and `factor_others` (the inner mean of the others).

    Returns:
        A ratio, negative where the edit goes the wrong way, 0 where the target does not move; None
        without the two columns, and where only the target moved.
    Source: ours.
    """
    return FACTOR_EPR.value(scores)


def _columns_of_factor_epr(scores: EditScores) -> Array:
    assert scores.factor_target is not None and scores.factor_others is not None
    return np.stack([scores.sign * scores.factor_target, scores.factor_others], axis=1)


def _ratio_of_factor_epr(means: Array) -> Array:
    return signed_ratio(means[..., 0], means[..., 1])


def _undefined(scores: EditScores) -> str | None:
    if scores.factor_target is None or scores.factor_others is None:
        return "no regressor gave 'factor_target' and 'factor_others'"
    if scores.factor_target.mean() != 0 and not scores.factor_others.any():
        return "no other factor moved: there is nothing to divide by"
    return None


FACTOR_EPR = register_metric(
    EditMetric(
        MetricInfo(
            name="factor_epr",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(None, None),
            title="EPR of known factors",
            scale_free=True,
            depends_on=(BASELINE, "others: all known factors but the target"),
        ),
        _columns_of_factor_epr,
        _ratio_of_factor_epr,
        _undefined,
    )
)
