"""How many decisions about other attributes an edit overturns for each one that it was asked to."""

from __future__ import annotations

import numpy as np

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.edit_success import flip_columns, ratio_of_columns
from casl_bench.metrics.metric import (
    BASELINE,
    OTHERS,
    EditMetric,
    MetricInfo,
    no_others,
    register_metric,
)


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
