"""Did the edit do what was asked, and what else did it do? Direction counts here.

Changes are in standard deviations of each logit over real source images ("sd"), so that attributes
and classifiers can be compared. `sign` is +1 where the attribute is to be turned on, -1 where off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import LEVEL, student_margin
from casl_bench.metrics.edit_scores import Array, EditScores, check_array
from casl_bench.metrics.epr import check_spread
from casl_bench.metrics.metric import (
    BASELINE,
    OTHERS,
    SPREAD,
    EditMetric,
    MetricInfo,
    first_column,
    no_others,
    register_metric,
)


def signed_target_change(
    base_target: ArrayLike, edit_target: ArrayLike, spread: float, sign: int = 1
) -> float:
    """Mean change of the target's logit as asked: sign * mean_i (edit_i - base_i) / spread.

    Args:
        base_target: [n] logits of the reconstructions.
        edit_target: [n] logits of the edits.
        spread: standard deviation of the logit over real source images, > 0.
        sign: +1 or -1, the direction asked for.

    Returns:
        In sd; negative where the edit went the wrong way.

    Raises:
        InputError: on other shapes, no image, NaN or infinity, or a spread that is not positive.
    Source: ours.
    """
    base, edit = _targets(base_target, edit_target, sign)
    return float(sign * (edit - base).mean() / check_spread([spread], 1)[0])


def flip_rate(base_target: ArrayLike, edit_target: ArrayLike, sign: int = 1) -> float | None:
    """Of the images on the wrong side of 0 before the edit, the share on the right side after it.

    The right side is sign * logit > 0; 0 itself is the wrong side.

    Args:
        base_target: [n] logits of the reconstructions.
        edit_target: [n] logits of the edits.
        sign: +1 or -1, the direction asked for.

    Returns:
        A share in [0, 1]; None where no image was on the wrong side.

    Raises:
        InputError: on other shapes, no image, NaN or infinity.
    Source: ours; the success rate of the editing literature.
    """
    base, edit = _targets(base_target, edit_target, sign)
    wrong = sign * base <= 0
    return float((sign * edit[wrong] > 0).mean()) if wrong.any() else None


def wrong_way_rate(base_target: ArrayLike, edit_target: ArrayLike, sign: int = 1) -> float:
    """Share of images whose target moved against the direction asked for.

    Args:
        base_target: [n] logits of the reconstructions.
        edit_target: [n] logits of the edits.
        sign: +1 or -1, the direction asked for.

    Returns:
        A share in [0, 1]; an unmoved image did not go the wrong way.

    Raises:
        InputError: on other shapes, no image, NaN or infinity.
    Source: ours.
    """
    base, edit = _targets(base_target, edit_target, sign)
    return float((sign * (edit - base) < 0).mean())


def drift(base_logits: ArrayLike, edit_logits: ArrayLike, spread: ArrayLike) -> Array:
    """mean_i (edit_ij - base_ij) / spread_j for every attribute j: where the edit leaks to.

    Args:
        base_logits: [n, A], n >= 1.
        edit_logits: [n, A].
        spread: [A], > 0.

    Returns:
        [A] in sd, signed.

    Raises:
        InputError: on other shapes, no image, NaN or infinity, or a spread that is not positive.
    Source: ours.
    """
    change: Array = _standardised_change(base_logits, edit_logits, spread).mean(0)
    return change


def drift_margin(
    base_logits: ArrayLike, edit_logits: ArrayLike, spread: ArrayLike, level: float = LEVEL
) -> Array | None:
    """Half of `drift`'s interval for other images: Student's quantile times its standard error.

    Args:
        base_logits: [n, A], n >= 1.
        edit_logits: [n, A].
        spread: [A], > 0.
        level: nominal coverage, in (0, 1).

    Returns:
        [A] in sd, >= 0; None with fewer than two images.

    Raises:
        InputError: as `drift`.
    Source: Student 1908.
    """
    change = _standardised_change(base_logits, edit_logits, spread)
    return student_margin(change, level) if len(change) >= 2 else None


def mean_collateral(
    base_logits: ArrayLike, edit_logits: ArrayLike, target: int, spread: ArrayLike
) -> float:
    """mean_{j != t} mean_i |edit_ij - base_ij| / spread_j: EPR's denominator in comparable units.

    Args:
        base_logits: [n, A], n >= 1, A >= 2.
        edit_logits: [n, A].
        target: column of the edited attribute.
        spread: [A], > 0.

    Returns:
        In sd, >= 0.

    Raises:
        InputError: as `drift`, and where there is no attribute but the target.
    Source: ours.
    """
    change = np.abs(_standardised_change(base_logits, edit_logits, spread))
    others = [j for j in range(change.shape[1]) if j != target]
    if not others or not 0 <= target < change.shape[1]:
        raise InputError("collateral change needs a target and an attribute other than it")
    return float(change[:, others].mean())


def _standardised_change(base: ArrayLike, edit: ArrayLike, spread: ArrayLike) -> Array:
    base = check_array("base logits", base, 2)
    edit = check_array("edit logits", edit, 2, base.shape)
    if len(base) == 0:
        raise InputError("at least one image is needed")
    return (edit - base) / check_spread(spread, base.shape[1])


def _targets(base: ArrayLike, edit: ArrayLike, sign: int) -> tuple[Array, Array]:
    base = check_array("base logits", base, 1)
    edit = check_array("edit logits", edit, 1, base.shape)
    if len(base) == 0:
        raise InputError("at least one image is needed")
    if sign not in (1, -1):
        raise InputError(f"sign must be +1 or -1, got {sign}")
    return base, edit


# The same as metrics: per-image columns and how their means combine. -----------------------------


def _gain(scores: EditScores) -> Array:
    """[n] the target's change in the direction asked for, in sd."""
    t = scores.target
    change: Array = (scores.edit[:, t] - scores.base[:, t]) / scores.spread[t]
    return scores.sign * change


def _wrong_side(scores: EditScores) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = scores.sign * scores.base[:, scores.target] <= 0
    return wrong


def flip_columns(scores: EditScores) -> Array:
    """[n, 2] 0 or 1: the target flipped as asked; it was on the wrong side before."""
    wrong = _wrong_side(scores)
    flipped = wrong & (scores.sign * scores.edit[:, scores.target] > 0)
    return np.stack([flipped, wrong], axis=1).astype(np.float64)


def ratio_of_columns(means: Array) -> Array:
    """`combine` of a ratio of two columns; not finite where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without an eligible image
        return means[..., 0] / means[..., 1]


def _no_wrong_side(scores: EditScores) -> str | None:
    return None if _wrong_side(scores).any() else "every image had the attribute as asked already"


def _collateral_column(scores: EditScores) -> Array:
    change = np.abs(scores.edit - scores.base) / scores.spread
    mean: Array = change[:, scores.others].mean(1, keepdims=True)
    return mean


SIGNED_TARGET_CHANGE = register_metric(
    EditMetric(
        MetricInfo(
            name="signed_target_change",
            version=1,
            higher_is_better=True,
            unit="sd",
            bounds=(None, None),
            title="target change",
            scale_free=True,
            depends_on=(BASELINE, SPREAD),
        ),
        lambda scores: _gain(scores)[:, None],
        first_column,
    )
)
MEAN_COLLATERAL = register_metric(
    EditMetric(
        MetricInfo(
            name="mean_collateral",
            version=1,
            higher_is_better=False,
            unit="sd",
            bounds=(0, None),
            title="other change",
            scale_free=True,
            depends_on=(OTHERS, BASELINE, SPREAD),
        ),
        _collateral_column,
        first_column,
        no_others,
    )
)
FLIP_RATE = register_metric(
    EditMetric(
        MetricInfo(
            name="flip_rate",
            version=1,
            higher_is_better=True,
            unit="share",
            bounds=(0, 1),
            title="flipped",
            scale_free=True,
            depends_on=(BASELINE,),
        ),
        flip_columns,
        ratio_of_columns,
        _no_wrong_side,
        lambda scores: int(_wrong_side(scores).sum()),
    )
)
WRONG_WAY_RATE = register_metric(
    EditMetric(
        MetricInfo(
            name="wrong_way_rate",
            version=1,
            higher_is_better=False,
            unit="share",
            bounds=(0, 1),
            title="wrong way",
            scale_free=True,
            depends_on=(BASELINE,),
        ),
        lambda scores: (_gain(scores) < 0).astype(np.float64)[:, None],
        first_column,
    )
)


# How many decisions about other attributes an edit overturns for each one that it was asked to.


def flip_precision(scores: EditScores) -> float | None:
    """sum_i sum_{j != t} [j flips on i] / sum_i [t flips on i as asked]: flips paid for a flip.

    Attribute j flips on image i where its logit is > 0 in one of reconstruction and edit and not in
    the other, in either direction. The target's flips count as in `flip_rate`: from s * logit <= 0
    to s * logit > 0, s = +1 where it is to be turned on, -1 where off; the other way they count
    nowhere. Flips of others count on all images, on those too whose target did not flip. It is a
    sum over the others: twice the attributes, twice the flips.

    Args:
        scores: n >= 1 images, A >= 2 attributes.

    Returns:
        Flips of others per flip of the target, >= 0, lower is better; None where no target flipped
        as asked, and where there is no other attribute.
    Source: ours.
    """
    return FLIP_PRECISION.value(scores)


def _columns(scores: EditScores) -> Array:
    crossed = (scores.base > 0) != (scores.edit > 0)
    collateral = crossed[:, scores.others].sum(1)
    return np.stack([collateral, flip_columns(scores)[:, 0]], axis=1).astype(np.float64)


def _no_flip(scores: EditScores) -> str | None:
    if (reason := no_others(scores)) is not None:
        return reason
    flipped = flip_columns(scores)[:, 0].any()
    return None if flipped else "no image's target flipped in the direction asked for"


FLIP_PRECISION = register_metric(
    EditMetric(
        MetricInfo(
            name="flip_precision",
            version=1,
            higher_is_better=False,
            unit="flips",
            bounds=(0, None),
            title="other flips per target flip",
            scale_free=True,
            depends_on=(OTHERS, BASELINE),
        ),
        _columns,
        ratio_of_columns,
        _no_flip,
    )
)
