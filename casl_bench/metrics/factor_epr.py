"""EPR without a classifier: the changes of the factors that an image was drawn from."""

from __future__ import annotations

import numpy as np

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr_signed import signed_ratio
from casl_bench.metrics.metric import BASELINE, EditMetric, MetricInfo, register_metric


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


def _columns(scores: EditScores) -> Array:
    assert scores.factor_target is not None and scores.factor_others is not None
    return np.stack([scores.sign * scores.factor_target, scores.factor_others], axis=1)


def _ratio(means: Array) -> Array:
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
        _columns,
        _ratio,
        _undefined,
    )
)
