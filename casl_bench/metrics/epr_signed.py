"""EPR that knows the direction asked for and never divides by less than inversion moves.

Written over all other attributes on average, and over the one that is damaged most.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from casl_bench.core.errors import InputError
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.metric import (
    BASELINE,
    FLOOR,
    OTHERS,
    SPREAD,
    EditMetric,
    MetricInfo,
    no_others,
    register_metric,
)

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
