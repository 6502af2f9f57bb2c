"""Editing precision ratio: how far the target moves for each unit that the others move.

The published number is blind to direction, grows with strength over a fixed floor, and depends on
each logit's scale and on the list of others. epr_plus.py has the variants that are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, EditScores, check_array
from casl_bench.metrics.metric import (
    BASELINE,
    FLOOR,
    OTHERS,
    SPREAD,
    EditMetric,
    MetricInfo,
    no_others,
    register_info,
    register_metric,
    signed_ratio,
)

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


EPR_OVER_RANDOM_INFO = register_info(
    MetricInfo(
        name="epr_over_random",
        version=1,
        higher_is_better=True,
        unit="ratio",
        bounds=(0, None),
        title="EPR over random",
        depends_on=(OTHERS, BASELINE, FLOOR, "reference: a random edit of equal norm"),
    )
)
"""`epr_floored` over that of a random edit of equal norm on the same images."""


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
