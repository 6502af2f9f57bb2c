"""Did the edit do what was asked, and what else did it do? Direction counts here.

Changes are in standard deviations of each logit over real source images ("sd"), so that attributes
and classifiers can be compared. `sign` is +1 where the attribute is to be turned on, -1 where off.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from casl_bench.metrics.bootstrap import student_margin
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.epr_plus import gain_column
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


def attribute_shift(scores: EditScores) -> Array:
    """[A] mean_i (edit_ij - base_ij) / spread_j of every attribute j, signed, in sd."""
    shift: Array = _change(scores).mean(0)
    return shift


def attribute_shift_margin(scores: EditScores) -> Array | None:
    """[A] half of the 95 % interval of `attribute_shift` for other images; None for one image.

    Source: Student 1908.
    """
    return student_margin(_change(scores)) if len(scores) >= 2 else None


def _change(scores: EditScores) -> Array:
    """[n, A] change of every logit, in sd."""
    return (scores.edit - scores.base) / scores.spread


def _wrong_side(scores: EditScores) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = scores.sign * scores.base[:, scores.target] <= 0
    return wrong


def _flip_columns(scores: EditScores) -> Array:
    """[n, 2] 0 or 1: the target flipped as asked; it was on the wrong side before."""
    wrong = _wrong_side(scores)
    flipped = wrong & (scores.sign * scores.edit[:, scores.target] > 0)
    return np.stack([flipped, wrong], axis=1).astype(np.float64)


def _ratio_of_columns(means: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without an eligible image
        return means[..., 0] / means[..., 1]


def _off_target_flips_columns(scores: EditScores) -> Array:
    crossed = (scores.base > 0) != (scores.edit > 0)
    collateral = crossed[:, scores.others].sum(1)
    return np.stack([collateral, _flip_columns(scores)[:, 0]], axis=1).astype(np.float64)


def _no_flip(scores: EditScores) -> str | None:
    if (reason := no_others(scores)) is not None:
        return reason
    flipped = _flip_columns(scores)[:, 0].any()
    return None if flipped else "no image's target flipped in the direction asked for"


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
        gain_column,
        first_column,
    )
)
"""sign * mean_i (edit_it - base_it) / spread_t of the target t; negative is the wrong way."""
MEAN_COLLATERAL = register_metric(
    EditMetric(
        replace(
            SIGNED_TARGET_CHANGE.info,
            name="mean_collateral",
            version=1,
            higher_is_better=False,
            bounds=(0, None),
            title="other change",
            depends_on=(OTHERS, BASELINE, SPREAD),
        ),
        lambda scores: np.abs(_change(scores))[:, scores.others].mean(1, keepdims=True),
        first_column,
        no_others,
    )
)
"""mean_{j != t} mean_i |edit_ij - base_ij| / spread_j: EPR's denominator in comparable units."""
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
        _flip_columns,
        _ratio_of_columns,
        lambda s: (
            None if _wrong_side(s).any() else "every image had the attribute as asked already"
        ),
        lambda scores: int(_wrong_side(scores).sum()),
    )
)
"""Of the images on the wrong side of 0 before the edit, the share on the right side after it.

The right side is sign * logit > 0; 0 itself is the wrong side. Undefined where no image was on the
wrong side. Source: ours; the success rate of the editing literature.
"""
WRONG_WAY_RATE = register_metric(
    EditMetric(
        replace(
            FLIP_RATE.info,
            name="wrong_way_rate",
            version=1,
            higher_is_better=False,
            title="wrong way",
        ),
        lambda scores: (gain_column(scores) < 0).astype(np.float64),
        first_column,
    )
)
"""Share of images whose target moved against the direction asked for; unmoved ones did not."""
OFF_TARGET_FLIPS_PER_FLIP = register_metric(
    EditMetric(
        MetricInfo(
            name="off_target_flips_per_flip",
            formerly="flip_precision",
            version=1,
            higher_is_better=False,
            unit="flips",
            bounds=(0, None),
            title="other flips per target flip",
            scale_free=True,
            depends_on=(OTHERS, BASELINE),
        ),
        _off_target_flips_columns,
        _ratio_of_columns,
        _no_flip,
    )
)
"""sum_i sum_{j != t} [j flips on i] / sum_i [t flips on i as asked]: flips paid for a flip.

Attribute j flips on image i where its logit is > 0 in one of reconstruction and edit and not in the
other, in either direction. The target's flips count as in `flip_rate`; the other way they count
nowhere. Flips of others count on all images. It is a sum over the others: twice the attributes,
twice the flips. Undefined where no target flipped as asked.
"""
